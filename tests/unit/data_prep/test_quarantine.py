"""The quarantine can be read, and what lies in it put back."""

import json
from pathlib import Path

import pytest

from data_prep.convert import prepare
from data_prep.quarantine import NotThereError, lines_of, main, restore
from data_prep.verify import verify
from rung.data.dataset import ShardDataset
from rung.data.index import REJECTED
from rung.data.record import Reason


@pytest.fixture
def folder(mptrj_frame, structure, write, config_for) -> Path:
    """Six good records, one absurd energy, one absurd force, a repetition, and a frame that is no record."""
    cells = [structure(edge=4.0 + 0.02 * number) for number in range(8)]
    content = {f"mp-{number}": {"f": mptrj_frame(structure=cell)} for number, cell in enumerate(cells)}
    content["mp-6"]["f"]["energy_per_atom"] = 600.0
    content["mp-7"]["f"]["force"] = [[16_657.0, 0, 0], [0, 0, 0]]
    content["mp-8"] = {"again": mptrj_frame(structure=cells[0]), "none": mptrj_frame(structure=None)}
    config = config_for(write(content))
    prepare(config)
    return Path(config.output)


def test_every_reason_is_listed_with_what_was_found(folder, capsys):
    found = {line["reason"]: line for line in lines_of(folder)}
    assert set(found) == {"energy_outlier", "force_outlier", "duplicate", "missing_key"}
    assert "16,657.0 eV/Å" in found["force_outlier"]["detail"]
    assert "mp-0/f" in found["duplicate"]["detail"]
    assert found["missing_key"]["record_id"] is None
    assert '"force"' in found["missing_key"]["raw"]
    assert main([str(folder), "list"]) == 0
    assert "energy_outlier (stored) 1" in capsys.readouterr().out


def test_records_set_aside_are_in_no_split(folder):
    dataset = ShardDataset(folder)
    used = [name for split in ("train", "validation", "test") for name in dataset.record_names(dataset.select(split))]
    assert sorted(used) == [f"mp-{number}/f" for number in range(6)]
    assert (dataset.index.split == REJECTED).sum() == 3


def test_restore_by_reason(folder):
    before = ShardDataset(folder).manifest_hash
    assert main([str(folder), "restore", "--reason", "force_outlier", "--dry-run"]) == 0
    assert ShardDataset(folder).manifest_hash == before
    assert main([str(folder), "restore", "--reason", "force_outlier"]) == 0
    dataset = ShardDataset(folder)
    assert dataset.manifest_hash != before
    assert dataset.manifest.restored == (7,)
    assert dataset.manifest.counts["kept"] == 7
    assert dataset.index.split[7] != REJECTED
    assert [line["reason"] for line in lines_of(folder, name="mp-7")] == []
    assert json.loads((folder / "summary.json").read_text())["records_kept"] == 7
    assert verify(folder).problems == ()
    assert main([str(folder), "restore", "--id", "mp-6/f"]) == 0
    assert ShardDataset(folder).manifest.restored == (6, 7)
    assert verify(folder).problems == ()


def test_what_is_not_there_or_has_no_record(folder, capsys):
    with pytest.raises(NotThereError, match="record 0 is not in the quarantine"):
        restore(folder, [0])
    assert main([str(folder), "restore", "--reason", Reason.MISSING_KEY]) == 2
    assert "export" in capsys.readouterr().err
    assert verify(folder).problems == ()


def test_show_says_what_is_wrong_with_each(folder, capsys):
    assert main([str(folder), "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert any(line.startswith("mp-7/f (record 7): force_outlier: ") for line in lines)
    assert any(line.startswith("mp-8/none (no record): missing_key: ") for line in lines)


def test_show_says_that_nothing_matches(folder, capsys):
    assert main([str(folder), "show", "--id", "mp-404"]) == 0
    assert capsys.readouterr().out == "nothing in the quarantine matches\n"


def test_export_asks_for_its_file(folder, capsys):
    assert main([str(folder), "export"]) == 2
    assert "python -m data_prep.quarantine FOLDER export FILE" in capsys.readouterr().err


def test_export_gives_the_raw_text(folder, tmp_path):
    target = tmp_path / "refused.jsonl"
    assert main([str(folder), "export", str(target)]) == 0
    (line,) = target.read_text().splitlines()
    assert json.loads(line)["structure"] is None
    assert main([str(folder), "export", str(target)]) == 2

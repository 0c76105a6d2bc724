"""A preparation that stops in the middle goes on with the same command, and ends with the same bytes."""

import logging
from pathlib import Path

import pytest

from data_prep.convert import prepare
from data_prep.parallel import WorkerLostError
from data_prep.verify import verify
from rung.data.shard import ShardWriter

SMALL_SHARDS = {"max_mb": 0.001}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "summary.json"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, WorkerLostError])
def test_goes_on_where_it_was_interrupted(raw, config_for, monkeypatch, tmp_path, caplog, interruption):
    config = config_for(raw, shards=SMALL_SHARDS)
    finish = ShardWriter.finish

    def killed(self):
        if self._name == "shard-00002":
            raise interruption
        return finish(self)

    monkeypatch.setattr(ShardWriter, "finish", killed)
    with pytest.raises(interruption):
        prepare(config)
    monkeypatch.undo()
    partial = Path(config.output).with_name(".out.partial")
    assert (partial / "shard-00001.lmdb").exists()
    assert not Path(config.output).exists()
    # What a killed process, which cannot clean up, would have left besides.
    (partial / "shard-00002.lmdb").write_bytes(b"half")
    with (partial / "journal.jsonl").open("a") as journal:
        journal.write('{"name": "shard-00002", "num_rec')
    made = []
    monkeypatch.setattr(ShardWriter, "finish", lambda self: made.append(self._name) or finish(self))
    with caplog.at_level(logging.INFO):
        prepare(config)
    assert "going on behind 2 finished shards" in caplog.text
    assert made == [f"shard-{number:05d}" for number in range(2, len(made) + 2)]
    assert not partial.exists()
    whole = config_for(raw, shards=SMALL_SHARDS, output=str(tmp_path / "whole"))
    prepare(whole)
    assert contents(Path(config.output)) == contents(Path(whole.output))
    assert verify(Path(config.output)).problems == ()


def test_another_input_begins_anew(raw, config_for, monkeypatch, caplog):
    config = config_for(raw, shards=SMALL_SHARDS)
    monkeypatch.setattr("data_prep.convert.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    raw.write_bytes(raw.read_bytes().replace(b"-6.0", b"-7.0"))
    prepare(config)
    assert "another input: beginning anew" in caplog.text
    assert verify(Path(config.output)).problems == ()


def test_a_kill_between_the_last_two_steps_leaves_a_whole_set(raw, config_for, monkeypatch, tmp_path):
    config, whole = config_for(raw), config_for(raw, output=str(tmp_path / "whole"))
    prepare(whole)
    monkeypatch.setattr("data_prep.convert._remove_leftovers", lambda _: None)
    prepare(config)
    monkeypatch.undo()
    assert (Path(config.output) / "journal.jsonl").exists()
    assert prepare(config).reused
    assert contents(Path(config.output)) == contents(Path(whole.output))

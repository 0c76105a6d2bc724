"""Models published from their runs, and promoted only when they win."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import pytest
import torch
from ase.build import bulk
from ase.io import jsonio
from mlflow import MlflowClient
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from rung.config.tree import EvaluateConfig, ExportConfig, TrainConfig
from rung.evaluation.evaluate import evaluate_model
from rung.evaluation.physics import PhysicsError
from rung.orchestration import registry
from rung.orchestration.launch import launch
from rung.orchestration.registry import PromotionError, export_and_register
from tests.unit.conftest import SMALL_MODEL


def trained(storage, dataset, name, **sections):
    return launch(
        TrainConfig.model_validate(
            {
                "run": {"name": name, "storage": str(storage)},
                "data": {"path": str(dataset)},
                "batch": {"structures": 8},
                "model": SMALL_MODEL,
                "reference": {"mode": "scratch"},
                "training": {"epochs": 1},
                "launcher": {"kind": "local"},
                **sections,
            }
        )
    )


def exporting(storage, name, **settings):
    return ExportConfig.model_validate(
        {
            "run": str(storage / name),
            "output": str(storage / "exported" / name / "chgnet.pth.tar"),
            "registry": {"model": "potential", "data_license": "CC BY 4.0", **settings},
        }
    )


def client_of(storage):
    return MlflowClient(tracking_uri=f"sqlite:///{storage}/mlflow.db")


def version_of(storage, alias):
    return int(client_of(storage).get_model_version_by_alias("potential", alias).version)


def test_a_published_model_has_card_tags_example_requirements_and_is_published_once(
    storage, small_dataset, monkeypatch
):
    trained(storage, small_dataset, "a")
    before = dict(os.environ)
    export_and_register(exporting(storage, "a"))
    export_and_register(exporting(storage, "a"))
    assert dict(os.environ) == before
    client = client_of(storage)
    (version,) = client.search_model_versions("name='potential'")
    assert client.get_model_version("potential", version.version).aliases == ["candidate"]
    assert version.run_id == (storage / "a" / "mlflow_run_id").read_text()
    assert version.tags["rung.functional"] == "GGA"
    assert float(version.tags["rung.test.energy_mae"]) > 0
    for words in (
        "## Errors",
        "meV/atom",
        "CC BY 4.0",
        "not by first principles",
        "scratch",
        "7 of 7 laws",
        "split by",
    ):
        assert words in version.description, words
    folder = Path(client.get_model_version_download_uri("potential", version.version).removeprefix("file://"))
    assert (folder / "MODEL_CARD.md").read_text() == version.description
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} == {
        "mlflow",
        "torch",
        "chgnet",
        "pymatgen",
        "ase",
        "numpy",
    }
    assert not [path for path in folder.rglob("*") if path.suffix == ".pkl"]


def test_a_complete_run_holds_where_it_comes_from_and_what_it_found(storage, small_dataset):
    tracking = {"checkpoints": "best", "system_metrics_every": 0.2}
    summary = trained(storage, small_dataset, "a", tracking=tracking)
    client = client_of(storage)
    run = client.get_run((storage / "a" / "mlflow_run_id").read_text())
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["rung"]
    assert environment["hardware"][0]["ranks"] == [0]
    assert environment["hardware"][0]["host"] in run.data.tags["rung.hardware"]
    assert run.data.tags["rung.version.mlflow"] == mlflow.__version__
    names = {
        "manifest.json",
        "config.yaml",
        "reference.json",
        "summary.json",
        "model.pth.tar",
        "elements.json",
        "source.json",
    }
    assert names <= {path.name for path in folder.iterdir()}
    assert list((folder / "checkpoint-best").iterdir())
    elements = json.loads((storage / "a" / "elements.json").read_text())["test"]
    for element, errors in elements.items():
        assert run.data.metrics[f"test/element/force_mae.{element}"] == pytest.approx(errors["force_mae"])
    assert [name for name in run.data.metrics if name.endswith("cpu_utilization_percentage")]
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.tags["rung.physics"] == "not tried"
    assert output.step == summary.best_step


def test_a_run_may_keep_its_model_to_itself(storage, small_dataset):
    trained(storage, small_dataset, "a", tracking={"model": False, "system_metrics_every": 0})
    run = client_of(storage).get_run((storage / "a" / "mlflow_run_id").read_text())
    assert not run.outputs.model_outputs
    assert not [name for name in run.data.metrics if name.startswith("system/")]
    assert not [file.path for file in client_of(storage).list_artifacts(run.info.run_id) if "checkpoint" in file.path]


def test_a_worse_model_stays_a_candidate_and_a_better_one_becomes_the_champion(storage, small_dataset):
    trained(storage, small_dataset, "good", training={"epochs": 6}, optimizer={"learning_rate": 3e-3})
    trained(
        storage, small_dataset, "bad", training={"epochs": 0}, run={"name": "bad", "storage": str(storage), "seed": 5}
    )
    export_and_register(exporting(storage, "bad", alias="champion"))
    assert version_of(storage, "champion") == 1  # nobody to beat
    export_and_register(exporting(storage, "good", alias="champion", errors=["force_mae"]))
    assert version_of(storage, "champion") == 2
    with pytest.raises(PromotionError, match=r"version 1 stays a candidate.*force_mae \d.*champion \d"):
        export_and_register(exporting(storage, "bad", alias="champion", errors=["force_mae"]))
    assert version_of(storage, "champion") == 2
    assert version_of(storage, "candidate") == 1
    export_and_register(exporting(storage, "bad", alias="champion", errors=["force_mae"], tolerance=1000.0))
    assert version_of(storage, "champion") == 1


def test_a_model_that_breaks_a_law_is_not_published(storage, small_dataset, monkeypatch):
    trained(storage, small_dataset, "a")

    def broken(model, purpose):
        raise PhysicsError("export is refused")

    monkeypatch.setattr("rung.evaluation.export.require_physics", broken)
    with pytest.raises(PhysicsError):
        export_and_register(exporting(storage, "a", alias="champion"))
    assert client_of(storage).search_registered_models() == []


def test_a_run_without_tracking_gets_an_mlflow_run_for_its_model(storage, small_dataset):
    trained(storage, small_dataset, "silent", tracking={"kind": "off"})
    export_and_register(exporting(storage, "silent"))
    (version,) = client_of(storage).search_model_versions("name='potential'")
    assert client_of(storage).get_run(version.run_id).data.tags["rung.run"] == str(storage / "silent")


def test_an_mlflow_that_does_not_answer_is_said_so_and_the_file_is_there(storage, small_dataset, monkeypatch):
    trained(storage, small_dataset, "a")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = exporting(storage, "a", uri="http://127.0.0.1:9")
    with pytest.raises(registry.RegistryError, match="the exported file is complete"):
        export_and_register(config)
    assert Path(config.output).exists()


ALONE = """
import json, sys
sys.modules["rung"] = None
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(json.load(open(sys.argv[2])))))
used = {name.partition(".")[0] for name, module in sys.modules.items() if module and getattr(module, "__file__", None)}
print(json.dumps(sorted(used)))
"""


def test_the_registered_model_gives_the_evaluations_energies_without_rung(storage, small_dataset, tmp_path):
    """In a Python that has Rung hidden, or, where RUNG_FRESH_PYTHON names one, in that with the requirements alone."""
    from rung.data.dataset import ShardDataset

    trained(storage, small_dataset, "a")
    export_and_register(exporting(storage, "a"))
    client = client_of(storage)
    folder = client.get_model_version_download_uri("potential", version_of(storage, "candidate")).removeprefix(
        "file://"
    )
    dataset = ShardDataset(small_dataset)
    records = [dataset[number] for number in dataset.select("test").tolist()]
    structures = [Structure(one.lattice, one.atomic_numbers.tolist(), one.frac_coords) for one in records]
    (tmp_path / "in.json").write_text(json.dumps([structure.as_dict() for structure in structures]))
    python = os.environ.get("RUNG_FRESH_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", ALONE, folder, str(tmp_path / "in.json")],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, answer, used = done.stdout.splitlines()
    found = json.loads(answer)
    exported = str(storage / "exported" / "a" / "chgnet.pth.tar")
    data = {"path": str(small_dataset)}
    config = EvaluateConfig.model_validate({"model": exported, "output": str(tmp_path / "e"), "data": data})
    mae = sum(abs(one["energy"] - record.energy) / record.num_atoms for one, record in zip(found, records, strict=True))
    assert mae / len(records) == pytest.approx(evaluate_model(config).errors["energy_mae"], abs=1e-5)
    assert not {"rung", "ray", "lmdb", "numba", "data_prep"} & set(json.loads(used))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from rung.config.sections import ModelConfig
    from rung.model.weights import build, save_model
    from rung.orchestration.model_package import save_package

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served")
    weights = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), folder / "m.pth.tar", {})
    return mlflow.pyfunc.load_model(str(save_package(weights, folder / "package", {})))


def test_pymatgen_and_ase_json_give_the_same_answer(served):
    atoms = bulk("NaCl", "rocksalt", 5.6)
    atoms.positions[1] += 0.1
    pymatgen = AseAtomsAdaptor.get_structure(atoms).as_dict()
    encoded = json.loads(jsonio.encode(atoms))
    plain = {key: value.tolist() for key, value in atoms.todict().items()}
    first, second, third = served.predict([pymatgen, encoded, plain])
    assert first["energy"] == pytest.approx(second["energy"], abs=1e-5) == pytest.approx(third["energy"], abs=1e-5)
    assert first["energy"] == pytest.approx(2 * first["energy_per_atom"])
    assert [len(first["forces"]), len(first["stress"]), len(first["magmoms"])] == [2, 3, 2]

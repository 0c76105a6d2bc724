"""Strict YAML, overrides, and messages that say what to change."""

from pathlib import Path
from typing import Literal

import pytest

from rung.config.load import ConfigError, apply_overrides, load_config, parse_scalar, to_yaml
from rung.config.section import Section, setting
from rung.config.tree import EvaluateConfig, FinetuneConfig, PrepareConfig, TrainConfig

MINIMAL = "data: {path: shards}\n"


class Inner(Section):
    """For tests: kinds of value that the real tree may not have yet."""

    rates: tuple[float, ...] = setting((1e-3,), "learning rates")
    mode: Literal["off", "on"] = setting("off", "a choice that YAML 1.1 takes for a boolean")


class Outer(Section):
    """For tests: an optional section."""

    inner: Inner | None = setting(None, "inner")


@pytest.fixture
def write(tmp_path):
    def write_config(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write_config


def message(tree, path=None, overrides=None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(tree, path, overrides, overrides_from="command line")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E4", 5e4),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("600_000", 600_000),
        ("12", 12),
        ("null", None),
        ("~", None),
        ("true", True),
        ("off", "off"),
        ("no", "no"),
        ("0.3.0", "0.3.0"),
        ("007", "007"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("e3", "e3"),
        ("[1, 2e0]", [1, 2.0]),
    ],
)
def test_scalars(text, value):
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_file_defaults_and_overrides_make_one_config(write):
    path = write("data: {path: shards}\noptimizer:\n  learning_rate: 5e-3\n")
    config = load_config(TrainConfig, path, {"optimizer.kind": "adamw", "run.name": "x"})
    assert (config.optimizer.learning_rate, config.optimizer.kind, config.run.name) == (5e-3, "adamw", "x")
    assert config.training.epochs == TrainConfig.model_fields["training"].default.epochs


def test_apply_overrides_makes_a_new_config():
    config = load_config(TrainConfig, None, {"data.path": "shards"})
    changed = apply_overrides(config, {"optimizer.learning_rate": 1e-4, "model.graph.bond_cutoff": 2})
    assert changed.optimizer.learning_rate == 1e-4
    assert changed.model.graph.bond_cutoff == 2.0
    assert config.optimizer.learning_rate != 1e-4
    assert type(apply_overrides(FinetuneConfig(data=config.data, model={"init": "0.3.0"}), {})) is FinetuneConfig
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate = 5 \(override\): must be a number > 0 and <= 1"):
        apply_overrides(config, {"optimizer.learning_rate": 5})


@pytest.mark.parametrize("name", ["1e-3", "null", "true", "12", "off", "0.3.0", "r²SCAN: a #1"])
def test_round_trip_keeps_types(write, name):
    config = load_config(PrepareConfig, write(f"output: '{name}'\nsource: {{kind: surrogate, functional: GGA}}\n"))
    assert config.output == name
    assert load_config(PrepareConfig, write(to_yaml(config))) == config


def test_round_trip_of_numbers_lists_and_null(write):
    config = Outer(inner=Inner(rates=(1e-5, 2.0, 3e22)))
    assert load_config(Outer, write(to_yaml(config))) == config
    assert load_config(Outer, write(to_yaml(Outer()))) == Outer()
    assert load_config(Outer, None, {"inner.mode": "on"}).inner == Inner(mode="on")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run: {sed: 3}", "run.sed (FILE, line 2): unknown key; did you mean run.seed?"),
        ("epochs: 3", "epochs (FILE, line 2): unknown key; did you mean training.epochs?"),
        ("kind: ray", "did you mean loss.kind or optimizer.kind or schedule.kind or launcher.kind or tracking.kind?"),
        ("zzz: 3", "zzz (FILE, line 2): unknown key; the configuration has run, data,"),
        ("run: {zzz: 3}", "run.zzz (FILE, line 2): unknown key; run has name, storage, seed"),
        ("training: {epochs: 1.5}", "training.epochs = 1.5 (FILE, line 2): must be a whole number >= 0 (epochs)"),
        ("training: {epochs: '3'}", "training.epochs = '3' (FILE, line 2): must be a whole number"),
        ("training: {epochs: true}", "training.epochs = true (FILE, line 2): must be a whole number"),
        ("run: {name: 5}", "put it in quotes"),
        ("run: {name: ../up}", "run.name = '../up' (FILE, line 2): must be text that matches ^[A-Za-z0-9]"),
        ("model:\n  graph:\n    atom_cutoff: 50", "model.graph.atom_cutoff = 50 (FILE, line 4): must be a number > 0"),
        ("model:\n  graph:\n    atom_cutoff: 50", "and <= 20 (Å)"),
        ("loss: {delta: .inf}", "loss.delta"),
        (
            "reference: {mode: refitt}",
            "must be one of scratch, trainable, frozen, refit, residual, isolated; did you mean refit?",
        ),
        ("reference: {mode: frozen}", "configuration (FILE): reference.mode 'frozen' builds on a pretrained reference"),
        ("model: {graph: {bond_cutoff: 7.0}}", "model.graph (FILE): bond_cutoff 7.0 Å exceeds atom_cutoff 6.0 Å"),
        ("optimizer:", "optimizer = null (FILE, line 2): must be a section with the keys kind, learning_rate,"),
        ("run: x", "run = 'x' (FILE, line 2): must be a section with the keys name, storage, seed"),
        ("loss:\n  force: 1\n  force: 2", "loss.force is given twice in FILE, on line 3 and line 4: keep one"),
        ("a: [1", "config file FILE is not YAML"),
        ("run: !!python/name:os.system x", "config file FILE is not YAML"),
    ],
)
def test_messages(write, text, expected):
    path = write(MINIMAL + text)
    assert expected.replace("FILE", str(path)) in message(TrainConfig, path)


def test_all_problems_at_once_with_their_places(write):
    path = write("training: {epochs: -1}\nrunn: {}\n")
    lines = message(TrainConfig, path, {"loss.force": -1}).splitlines()
    assert lines[0] == "4 problems in the configuration:"
    keys = "path, subset, cache, cache_limit, workers, prefetch"
    assert f"  data ({path}): missing; must be a section with the keys {keys}: training data" in lines
    assert f"  runn ({path}, line 2): unknown key; did you mean run?" in lines
    assert "  loss.force = -1 (command line): must be a number >= 0" in lines


def test_rules_between_keys_name_every_place_that_took_part(write):
    path = write("output: out\nsource: {kind: surrogate, functional: GGA}\n")
    assert message(PrepareConfig, path, {"source.path": "x"}).startswith(
        f"source ({path}, command line): the surrogate"
    )


def test_missing_key_says_what_it_means():
    text = message(EvaluateConfig, None, {"data.path": "shards", "output": "out"})
    assert text.startswith("model (command line): missing; must be text, not empty: 0.3.0, r2scan, a model file")


def test_finetuning_needs_weights():
    assert "fine-tuning starts from weights: set model.init to 0.3.0" in message(
        FinetuneConfig, None, {"data.path": "x"}
    )


def test_unusable_files(tmp_path, write):
    assert "does not exist (current folder:" in message(TrainConfig, tmp_path / "none.yaml")
    assert "must hold sections" in message(TrainConfig, write("- 1\n"))
    assert "missing" in message(TrainConfig, write(""))
    assert "refers to itself" in message(TrainConfig, write("run: &a {name: *a}\n"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in message(TrainConfig, binary)


def test_values_without_a_plain_form():
    assert "no plain form" in message(TrainConfig, None, {"data.path": object()})


def test_aliases_and_merge_keys_work(write):
    path = write("data: {path: shards}\nrun: {name: &name a, storage: *name}\nloss: &loss {force: 2}\n")
    assert load_config(TrainConfig, path).run.storage == "a"
    path = write(
        "source: &a {kind: surrogate, functional: GGA}\noutput: x\nsplit: {<<: {test: 0.2}, validation: 0.3}\n"
    )
    assert load_config(PrepareConfig, path).split.test == 0.2

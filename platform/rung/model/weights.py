"""Where weights come from and where they go: random ones, the two bundled models, files.

A model file is upstream's own format, `{"model": {"state_dict", "model_args"}}`, so that plain `CHGNet.from_file` and
chgnet's ASE calculator load what rung writes, without rung.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from chgnet.model import CHGNet
from chgnet.model.composition_model import AtomRef

from rung.config.sections import ModelConfig
from rung.model.support import require_supported

BUNDLED: Final[dict[str, str]] = {
    "0.3.0": "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
    "r2scan": "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}
"""Models that the chgnet package carries: name -> file in its `pretrained` folder."""

_PLACEHOLDER_REFERENCE: Final = "MPtrj"
"""Upstream rebuilds a model from its arguments before loading its state, so the reference must be one that upstream
can name; the state then brings the true one."""


class ModelFileError(ValueError):
    """A file that holds no CHGNet, or not the one that it claims."""


class ModelSizeError(ValueError):
    """Weights of another size than the config asks for."""


def build(config: ModelConfig) -> CHGNet:
    """Make a CHGNet of the configured size with random weights from torch's current seed.

    Its reference is upstream's for MPtrj until `rung.model.reference` sets another.
    """
    width = config.feature_dim
    arguments: dict[str, Any] = {
        "atom_fea_dim": width,
        "bond_fea_dim": width,
        "angle_fea_dim": width,
        "composition_model": _PLACEHOLDER_REFERENCE,
        "num_radial": config.num_radial,
        "num_angular": config.num_angular,
        "n_conv": config.num_blocks,
        "atom_conv_hidden_dim": width,
        "bond_conv_hidden_dim": width,
        "mlp_hidden_dims": [width, width, width],
        "atom_graph_cutoff": config.graph.atom_cutoff,
        "bond_graph_cutoff": config.graph.bond_cutoff,
    }
    return _construct(arguments)


def initial_model(config: ModelConfig) -> CHGNet:
    """Make the model that a run starts from: `build` where `init` is "none", else `load(init)` with its errors."""
    return build(config) if config.init == "none" else load(config.init)


def check_size(model: CHGNet, config: ModelConfig) -> None:
    """Refuse weights of another size than the config asks for. A size that is left at its default asks for none.

    Raises:
        ModelSizeError: names each key with both values.
    """
    graph, default = model.graph_converter, ModelConfig()
    found = {
        "feature_dim": (model.model_args["atom_fea_dim"], config.feature_dim, default.feature_dim),
        "num_radial": (model.model_args["num_radial"], config.num_radial, default.num_radial),
        "num_angular": (model.model_args["num_angular"], config.num_angular, default.num_angular),
        "num_blocks": (model.n_conv, config.num_blocks, default.num_blocks),
        "graph.atom_cutoff": (graph.atom_graph_cutoff, config.graph.atom_cutoff, default.graph.atom_cutoff),
        "graph.bond_cutoff": (graph.bond_graph_cutoff, config.graph.bond_cutoff, default.graph.bond_cutoff),
    }
    wrong = [
        f"model.{key} is {asked}, theirs {has}"
        for key, (has, asked, usual) in found.items()
        if asked not in (has, usual)
    ]
    if wrong:
        raise ModelSizeError(
            f"the weights of model.init {config.init} are of another size than the config asks for: {', '.join(wrong)}."
            " Weights bring their size along: leave these keys out, or set model.init to none to train that size from"
            " random weights"
        )


def load(source: str | Path) -> CHGNet:
    """Load a model, in float32 on the CPU.

    Args:
        source: name of a bundled model, or a model file.

    Raises:
        ModelFileError: the file is absent, holds no CHGNet, or its state does not fit its own arguments.
        UnsupportedModelError: it holds a CHGNet of an architecture that rung does not evaluate.
    """
    name = str(source)
    if name in BUNDLED:
        with resources.as_file(resources.files("chgnet") / "pretrained" / BUNDLED[name]) as path:
            return from_state(_read(path)["model"], origin=name)
    path = Path(source).expanduser()
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a model file: give the .pth.tar file in it")
    if not path.is_file():
        raise ModelFileError(
            f"no model file and no run at {path}: give one of {', '.join(BUNDLED)}, or a .pth.tar file or a run's"
            " folder that exists (model.init in a training run)"
        )
    return from_state(_read(path)["model"], origin=str(path))


def from_state(model: Mapping[str, Any], origin: str) -> CHGNet:
    """Rebuild a CHGNet from its `model_args` and `state_dict`.

    Args:
        model: the mapping that holds both.
        origin: where it comes from, for errors.

    Raises:
        ModelFileError: chgnet cannot build it, or its state does not fit its own arguments.
        UnsupportedModelError: rung does not evaluate its architecture.
    """
    try:
        network = _construct(dict(model["model_args"]))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelFileError(f"{origin}: chgnet cannot build a model from its model_args: {error}") from error
    require_supported(network)
    try:
        network.load_state_dict(model["state_dict"])
    except RuntimeError as error:
        raise ModelFileError(f"{origin}: its state_dict does not fit its model_args: {error}") from error
    if isinstance(network.composition_model, AtomRef):
        # Upstream refuses to predict with a reference that says it is not fitted, whatever its weights are.
        network.composition_model.fitted = True
    return network


def save_model(model: CHGNet, path: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Write a model file that plain chgnet loads. The file appears whole or not at all.

    Args:
        model: any CHGNet that rung evaluates; stored in float32, as upstream computes.
        path: file to write, by custom `*.pth.tar`; an older one is replaced.
        metadata: plain numbers, texts, lists and mappings about the model, kept under the key "rung".

    Returns:
        the path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": portable_state(model), "rung": dict(metadata)}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `save_model` kept under the key "rung"; empty for a file of upstream's.

    Raises:
        ModelFileError: the file holds no CHGNet.
    """
    return dict(_read(Path(path)).get("rung", {}))


def portable_state(model: CHGNet) -> dict[str, Any]:
    """Return `model_args` and `state_dict` (float32, on the CPU) that rebuild the model anywhere."""
    arguments = dict(model.model_args)
    if model.composition_model is not None:
        # A reference given as a module is no plain value and would not load with weights_only=True.
        arguments["composition_model"] = _PLACEHOLDER_REFERENCE
    state = {
        name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).clone()
        for name, value in model.state_dict().items()
    }
    return {"state_dict": state, "model_args": arguments}


def weights_hash(model: CHGNet) -> str:
    """SHA-256 of what `portable_state` holds: equal for models that predict the same, wherever they are stored."""
    portable = portable_state(model)
    digest = hashlib.sha256(json.dumps(portable["model_args"], sort_keys=True, default=str).encode())
    for name, value in sorted(portable["state_dict"].items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        # weights_only: a model file from elsewhere must not run code, which upstream's from_file would let it.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelFileError(f"{path} is not a file of weights that loads without running code: {reason}") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not {"model_args", "state_dict"} <= model.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelFileError(
            f"{path} is not a CHGNet file: expected the keys model.model_args and model.state_dict, found {found}"
        )
    return content


def _construct(arguments: dict[str, Any]) -> CHGNet:
    with _silenced():
        return CHGNet(**arguments)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    # Upstream prints the number of parameters, once per construction and so once per rank and trial.
    with contextlib.redirect_stdout(io.StringIO()):
        yield

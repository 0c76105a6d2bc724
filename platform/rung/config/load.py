"""Configs from YAML and dotted overrides, and back to YAML.

Reading is strict: unknown or repeated keys and values of the wrong type are refused, and each problem names its key,
the value found, what is allowed and where it was set. Relative paths inside a config are relative to the current
folder, not to the file: the same file serves every run that is started from the repository's root.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from rung.config.describe import explain
from rung.config.section import Section

AnySection = TypeVar("AnySection", bound=Section)

_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT = re.compile(
    r"^[-+]?(\.\d[\d_]*|\d[\d_]*\.[\d_]*)([eE][-+]?\d+)?$"  # 1.5, .5e3
    r"|^[-+]?\d[\d_]*[eE][-+]?\d+$"  # 1e-3
    r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)


class ConfigError(ValueError):
    """A config that cannot be used; the message says what to change."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML's own YAML 1.1 reads 1e-3 as text, off as false and 1:30 as 90."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or the loader above would read as something else."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][\d_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Dumper.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))


@dataclass(frozen=True)
class _Document:
    values: dict[str, Any]
    origins: dict[str, str]
    """Where each dotted key was set; the empty key stands for the whole."""


def load_config(
    tree: type[AnySection],
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    overrides_from: str = "override",
) -> AnySection:
    """Build a config from a file and overrides; overrides win.

    Args:
        tree: the config's class.
        path: YAML file; without one, defaults and overrides alone.
        overrides: values by dotted key.
        overrides_from: where the overrides come from, for messages.

    Raises:
        ConfigError: what is wrong, key by key.
    """
    document = _read(path) if path else _Document({}, {"": overrides_from})
    return _build(tree, document, overrides or {}, overrides_from)


def read_keys(path: Path) -> list[str]:
    """The top-level keys of a file, whatever they are.

    Raises:
        ConfigError: the file cannot be read.
    """
    return [str(key) for key in _read(path).values]


def apply_overrides(
    config: AnySection, overrides: Mapping[str, Any], *, overrides_from: str = "override"
) -> AnySection:
    """A copy of a config with some values replaced: `{"optimizer.learning_rate": 1e-4}`.

    Raises:
        ConfigError: what is wrong, key by key.
    """
    document = _Document(config.model_dump(mode="json"), {"": "configuration"})
    return _build(type(config), document, overrides, overrides_from)


def parse_scalar(text: str) -> Any:
    """A value as the YAML reader sees it: `1e-3` is a number, `null` is None.

    Raises:
        ConfigError: the text is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not YAML: {error}") from error


def to_yaml(config: Section) -> str:
    """The whole config, defaults included, as YAML that load_config reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _build(
    tree: type[AnySection], document: _Document, overrides: Mapping[str, Any], overrides_from: str
) -> AnySection:
    values, origins = _merge(document.values, overrides), document.origins | dict.fromkeys(overrides, overrides_from)
    try:
        # Through JSON, since pydantic's strict mode takes lists for tuples and text for enums only there.
        return tree.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error, tree, origins)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{origins['']}: holds a value that YAML has no plain form for: {error}") from error


def _merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(values))
    for key, value in overrides.items():
        *sections, name = key.split(".")
        target = merged
        for section in sections:
            inner = target.get(section)
            if not isinstance(inner, dict):
                inner = target[section] = {}
            target = inner
        target[name] = value
    return merged


def _read(path: Path) -> _Document:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist (current folder: {Path.cwd()})") from error
    except IsADirectoryError as error:
        raise ConfigError(f"config file {path} is a folder: give one of the .yaml files in it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {path} is not UTF-8 text: {error}") from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        origins = {"": str(path), **dict(_origins(root, path, ""))} if root else {"": str(path)}
        values = loader.construct_document(root) if root else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(
            f"config file {path} refers to itself: an alias (*) stands inside its own anchor (&)"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} holds {type(values).__name__}; it must hold sections (key: value)")
    return _Document(values, origins)


def _origins(node: yaml.Node, path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Dotted key and place of every key below a node; refuses keys that are given twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        name, line = str(key_node.value), key_node.start_mark.line + 1
        if name in lines:
            raise ConfigError(
                f"{prefix}{name} is given twice in {path}, on line {lines[name]} and line {line}: keep one"
            )
        lines[name] = line
        yield f"{prefix}{name}", f"{path}, line {line}"
        yield from _origins(value_node, path, f"{prefix}{name}.")

"""The declarations of the config tree in words: every key, what it allows, and what is wrong with a value."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rung.config.section import Section

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_SHOWN_CHARACTERS = 80

_CUSTOMARY = {
    "lr": "learning_rate",
    "batch_size": "structures",
    "bs": "structures",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "scheduler": "schedule",
    "optim": "optimizer",
    "dataset": "data",
    "output_dir": "storage",
    "num_gpus": "gpus_per_worker",
    "gpus": "gpus_per_worker",
    "wd": "weight_decay",
    "checkpoint": "init",
    "pretrained": "init",
}
"""Names that other programs use -> Rung's."""


@dataclass(frozen=True)
class Setting:
    """One key of the tree, as declared."""

    key: str
    """Dotted: `optimizer.learning_rate`."""
    meaning: str
    allowed: str
    """What a value must be, with bounds, choices and unit."""
    choices: tuple[str, ...]
    default: str | None
    """As it is written in YAML; None where a value is required."""
    annotation: Any


@dataclass(frozen=True)
class Group:
    """The settings of one section, without those of the sections inside it."""

    key: str
    """Dotted; empty for the root."""
    meaning: str
    names: tuple[str, ...]
    """Names valid right under the section, inner sections included."""
    settings: tuple[Setting, ...]


def groups(tree: type[Section], key: str = "", meaning: str = "") -> Iterator[Group]:
    """Every section of a config, outer before inner, in the order of declaration."""
    schema = tree.model_json_schema()
    prefix = f"{key}." if key else ""
    settings = []
    inner = []
    for name, field in tree.model_fields.items():
        section = _section(field.annotation)
        if section:
            inner.append(groups(section, prefix + name, field.description or ""))
            continue
        declared = schema["properties"][name]
        settings.append(
            Setting(
                key=prefix + name,
                meaning=field.description or "",
                allowed=_allowed(declared),
                choices=tuple(declared.get("enum", ())),
                default=None if field.is_required() else shown(field.default),
                annotation=field.annotation,
            )
        )
    yield Group(key, meaning, tuple(tree.model_fields), tuple(settings))
    for group in inner:
        yield from group


def accepts(setting: Setting, value: Any) -> bool:
    """Whether a value has a type that the setting takes; bounds are not looked at."""
    try:
        TypeAdapter(setting.annotation).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError):
        return False
    return True


def explain(error: ValidationError, tree: type[Section], origins: Mapping[str, str]) -> str:
    """All that is wrong with a config: one line for each problem.

    Args:
        error: what pydantic found.
        tree: the config's class.
        origins: where each dotted key was set; the empty key stands for the whole.
    """
    declared = _Declared({group.key: group for group in groups(tree)})
    lines = list(dict.fromkeys(_problem(details, declared, origins) for details in error.errors()))
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} problems in the configuration:" + "".join(f"\n  {line}" for line in lines)


def hint_for(tree: type[Section], key: str) -> str:
    """The key that an unknown one was probably meant to be, or those there are."""
    return _Declared({group.key: group for group in groups(tree)}).nearest(key)


def shown(value: Any) -> str:
    """A value as one would write it in YAML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class _Declared:
    """Sections and settings of a tree by dotted key."""

    def __init__(self, sections: Mapping[str, Group]) -> None:
        self.sections = sections
        self.settings = {setting.key: setting for group in sections.values() for setting in group.settings}

    def key_of(self, location: str) -> str:
        """The setting with several types that a problem with one of them is about, else the place itself."""
        owner = next((key for key in self.settings if location.startswith(f"{key}.")), location)
        union = owner in self.settings and get_origin(self.settings[owner].annotation) is UnionType
        return owner if union else location

    def wanted(self, key: str) -> str:
        """What a key must hold."""
        if key in self.sections:
            return f"must be a section with the keys {', '.join(self.sections[key].names)}"
        return f"must be {self.settings[key].allowed}"

    def nearest(self, key: str) -> str:
        """The declared key that an unknown one was probably meant to be, or those there are."""
        section, _, name = key.rpartition(".")
        here = self.sections.get(section, self.sections[""])
        close = [each for each in here.names if each == _CUSTOMARY.get(name.replace("-", "_"))]
        close = close or difflib.get_close_matches(name.replace("-", "_"), here.names, n=1)
        if close:
            return f"did you mean {f'{here.key}.{close[0]}'.lstrip('.')}?"
        wanted = _CUSTOMARY.get(name, name)
        elsewhere = [other for other in self.settings if other.rpartition(".")[2] == wanted]
        if not elsewhere and section not in self.sections:
            elsewhere = difflib.get_close_matches(key, self.settings, n=1)
        if elsewhere:
            return f"did you mean {' or '.join(elsewhere)}?"
        return f"{here.key or 'the configuration'} has {', '.join(here.names)}"


def _problem(details: ErrorDetails, declared: _Declared, origins: Mapping[str, str]) -> str:
    key = declared.key_of(".".join(str(part) for part in details["loc"]))
    place = f"({_origin(key, origins)})"
    match details["type"]:
        case "value_error":
            places = _origins_below(key, origins)
            return f"{key or 'configuration'} ({places}): {details.get('ctx', {})['error']}"
        case "extra_forbidden":
            return f"{key} {place}: unknown key; {declared.nearest(key)}"
        case "missing":
            meaning = declared.settings[key].meaning if key in declared.settings else declared.sections[key].meaning
            return f"{key} {place}: missing; {declared.wanted(key)}: {meaning}"
    found = f"{key} = {_quoted(details['input'])} {place}"
    if key not in declared.settings:
        return f"{found}: {declared.wanted(key) if key in declared.sections else details['msg']}"
    hint = "; put it in quotes" if details["type"] == "string_type" else ""
    close = difflib.get_close_matches(str(details["input"]), declared.settings[key].choices, n=1)
    if close:
        hint = f"; did you mean {close[0]}?"
    return f"{found}: {declared.wanted(key)}{hint}"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins[key]


def _origins_below(key: str, origins: Mapping[str, str]) -> str:
    """A rule between several keys can be broken from the file, from the command line, or by both together."""
    prefix = f"{key}." if key else ""
    found = [_origin(key, origins), *(where for other, where in origins.items() if other.startswith(prefix))]
    return ", ".join(dict.fromkeys(where.partition(", line ")[0] for where in found))


def _allowed(declared: Mapping[str, Any]) -> str:
    """What a JSON schema of one field allows."""
    parts = declared.get("anyOf", [declared])
    text = " or ".join(_allowed_part(part) for part in parts)
    unit = declared.get("unit")
    return f"{text} ({unit})" if unit else text


def _allowed_part(part: Mapping[str, Any]) -> str:
    choices = part.get("enum") or ([part["const"]] if "const" in part else None)
    if choices:
        return f"one of {', '.join(map(shown, choices))}" if len(choices) > 1 else shown(choices[0])
    if part.get("type") == "array":
        return f"a list, each {_allowed(part['items'])}" if "items" in part else "a list"
    text = _KINDS.get(part.get("type", ""), "a value")
    if "pattern" in part:
        text += f" that matches {part['pattern']}"
    elif part.get("minLength"):
        text += ", not empty"
    bounds = [f"{sign} {part[name]:.15g}" for name, sign in _BOUNDS.items() if name in part]
    return " ".join([text, " and ".join(bounds)]) if bounds else text


def _quoted(value: Any) -> str:
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def _section(annotation: Any) -> type[Section] | None:
    """The section that a field holds, also where it may be null."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None

"""A search space: keys of a config tree, and what each may become. Checked against the tree when it is read."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from rung.config.describe import groups, hint_for, shown
from rung.config.section import Section

Kind = Literal["log_uniform", "uniform", "choice", "grid"]

_FIXED = ("run.name", "run.storage", "launcher.", "tracking.", "sweep.")
"""What decides where and how a trial runs, not which model comes out of it."""


@dataclass(frozen=True)
class Dimension:
    """One key that is varied."""

    key: str
    """Dotted: `optimizer.learning_rate`."""
    kind: Kind
    values: tuple[Any, ...]
    """Lowest and highest value of a range; else the values themselves."""
    whole: bool = False
    """Whether a range holds whole numbers only; both ends belong to it."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Keys before this one, and the values of theirs for which this one is varied."""

    @property
    def is_range(self) -> bool:
        """Whether it is a range of numbers."""
        return self.kind in ("log_uniform", "uniform")

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it is varied, given the values of the keys before it."""
        return all(key in chosen and chosen[key] in allowed for key, allowed in self.when.items())


def parse_space(space: Mapping[str, Any], tree: type[Section]) -> tuple[Dimension, ...]:
    """Read a space as it stands in YAML.

    Args:
        space: specification by dotted key, such as `{"optimizer.learning_rate": {"log_uniform": [1e-5, 1e-2]}}`.
        tree: the config that the keys belong to.

    Raises:
        ValueError: all that is wrong, key by key.
    """
    dimensions: list[Dimension] = []
    problems: list[str] = []
    allowed = {setting.key: setting.allowed for group in groups(tree) for setting in group.settings}
    for key, given in space.items():
        try:
            _check_key(key, allowed, tree)
            dimension = _dimension(key, given, _annotation(tree, key))
            _check_values(dimension, tree, allowed[key])
            _check_condition(dimension, dimensions)
        except ValueError as error:
            problems.append(f"sweep.space.{key}: {error}")
        else:
            dimensions.append(dimension)
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(dimensions)


def _check_key(key: str, allowed: Mapping[str, str], tree: type[Section]) -> None:
    if key.startswith(_FIXED):
        raise ValueError("says where and how a trial runs, which a sweep decides itself: leave it out of the space")
    if key not in allowed:
        raise ValueError(f"unknown key; {hint_for(tree, key)}")


def _dimension(key: str, given: Any, annotation: Any) -> Dimension:
    kinds = get_args(Kind)
    found = [name for name in given if name in kinds] if isinstance(given, Mapping) else []
    if len(found) != 1 or set(given) - {*kinds, "when"}:
        raise ValueError(f"found {shown(given)}; give one of {', '.join(kinds)}, and when if it depends on another key")
    kind = found[0]
    values, when = given[kind], given.get("when") or {}
    if not isinstance(values, list) or not values:
        raise ValueError(f"{kind} = {shown(values)}; give a list of values")
    if not isinstance(when, Mapping) or not all(isinstance(one, list) and one for one in when.values()):
        raise ValueError(f"when = {shown(when)}; give {{other key: [values]}}")
    conditions = {name: tuple(one) for name, one in when.items()}
    if kind in ("choice", "grid"):
        return Dimension(key, kind, tuple(values), when=conditions)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not values[0] < values[1]:
        raise ValueError(f"{kind} = {shown(values)}; give [lowest, highest]")
    if kind == "log_uniform" and values[0] <= 0:
        raise ValueError(f"log_uniform = {shown(values)}; the lowest must be above 0")
    whole = int in (annotation, *get_args(annotation)) and float not in (annotation, *get_args(annotation))
    return Dimension(key, kind, tuple(values), whole, conditions)


def _check_values(dimension: Dimension, tree: type[Section], allowed: str) -> None:
    name = dimension.key.rpartition(".")[2]
    declared = _section(tree, dimension.key).model_fields[name]
    annotated: Any = Annotated[declared.annotation, declared]  # pyright: ignore[reportInvalidTypeForm]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    for value in dimension.values:
        try:
            adapter.validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError):
            raise ValueError(f"{dimension.kind} holds {shown(value)}; {name} must be {allowed}") from None


def _check_condition(dimension: Dimension, before: list[Dimension]) -> None:
    known = {other.key: other for other in before}
    for key, values in dimension.when.items():
        if key not in known:
            raise ValueError(f"when names {key}, which is not a key of the space that stands before this one")
        missing = [value for value in values if not _may_be(known[key], value)]
        if missing:
            raise ValueError(f"when {key} is {shown(missing[0])}: it never is; {key} has {shown(known[key].values)}")


def _may_be(dimension: Dimension, value: Any) -> bool:
    if dimension.is_range:
        raise ValueError(f"when names {dimension.key}, which is a range: a condition needs a choice or a grid")
    return value in dimension.values


def _annotation(tree: type[Section], key: str) -> Any:
    return _section(tree, key).model_fields[key.rpartition(".")[2]].annotation


def _section(tree: type[Section], key: str) -> type[Section]:
    for name in _parents(key):
        annotation = tree.model_fields[name].annotation
        tree = next(one for one in (annotation, *get_args(annotation)) if isinstance(one, type))
    return tree


def _parents(key: str) -> Iterator[str]:
    yield from key.split(".")[:-1]

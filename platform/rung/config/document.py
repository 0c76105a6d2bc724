"""The reference of all settings as a page of the guide, made from the declarations: `docs/reference/configuration.md`.

python -m rung.config.document docs/reference/configuration.md
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rung.config.describe import Group, Setting, groups
from rung.config.inference import PredictConfig
from rung.config.section import Section
from rung.config.studies import FunctionalsConfig, ScalingStudyConfig, TransferStudyConfig
from rung.config.tree import EvaluateConfig, ExportConfig, FinetuneConfig, PrepareConfig, SweepConfig, TrainConfig

TREES: Final[Mapping[str, type[Section]]] = {
    "prepare_data": PrepareConfig,
    "pretrain": TrainConfig,
    "finetune": FinetuneConfig,
    "sweep": SweepConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
    "study_functionals": FunctionalsConfig,
    "study_transfer": TransferStudyConfig,
    "study_scaling": ScalingStudyConfig,
}
"""The config of each job in `jobs/`."""

_HEAD: Final = """# Configuration

<!-- Made by `python -m rung.config.document docs/reference/configuration.md` (`make docs`): do not edit. -->

Every setting of every job. The same text is printed by `--help`, and `--dry-run` prints a job's whole config with all
defaults:

```
python jobs/finetune.py --help
python jobs/finetune.py --config jobs/configs/finetune_r2scan.yaml --optimizer.learning_rate 3e-4 --dry-run
```

A key stands in a YAML file as `section: {key: value}`, and on the command line as `--section.key VALUE`, which wins.
Values are YAML 1.2: `1e-3`, `true`, `null`, `[1, 2]`. Unknown keys, values of another type and values out of bounds are
refused, with the key, what was found, what is allowed and where it was set. Units are in parentheses; a key without one
has no unit. `required` has no default. Relative paths are relative to the current folder.
"""

_Content = tuple[tuple[str, str, str, str | None], ...]


def page(trees: Mapping[str, type[Section]] = TREES) -> str:
    """The whole page. A section that stands in several configs alike is written out once, and named afterwards."""
    shown: dict[_Content, str] = {}
    parts = [_HEAD]
    for job, tree in trees.items():
        parts.append(f"## {job}\n\n{_sentence((tree.__doc__ or '').partition(': ')[2] or tree.__doc__ or '')}\n")
        repeated: list[str] = []
        for group in groups(tree):
            content = _content(group)
            if content and content in shown:
                repeated.append(f"| `{group.key}` | {_cell(group.meaning)} | {shown[content]} |")
                continue
            if content:
                shown[content] = f"[`{group.key}` of {job}](#{_anchor(job, group.key)})"
                parts.append("\n".join(_section(job, group)))
        if repeated:
            parts.append("\n".join(["| section | | the same as |", "| --- | --- | --- |", *repeated]) + "\n")
    return "\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Write the page to a file."""
    Path(arguments[0]).write_text(page(), encoding="utf-8")
    return 0


def _content(group: Group) -> _Content:
    """What a section says, whatever it is called."""
    return tuple((_name(setting), setting.meaning, setting.allowed, setting.default) for setting in group.settings)


def _section(job: str, group: Group) -> Iterator[str]:
    if group.key:
        yield f'<a id="{_anchor(job, group.key)}"></a>\n\n### `{group.key}`\n\n{_sentence(group.meaning)}\n'
    yield "| key | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for setting in group.settings:
        default = "required" if setting.default is None else f"`{setting.default}`"
        yield f"| `{setting.key}` | {_cell(setting.allowed)} | {default} | {_cell(setting.meaning)} |"
    yield ""


def _anchor(job: str, key: str) -> str:
    return f"{job}-{key}".replace(".", "-").replace("_", "-")


def _name(setting: Setting) -> str:
    return setting.key.rpartition(".")[2]


def _cell(text: str) -> str:
    """Text that stands in a table as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _sentence(text: str) -> str:
    first = text.strip().partition("\n\n")[0].rstrip(".")
    begins_with_a_name = first.partition(" ")[0].endswith(":")
    return f"{first}." if begins_with_a_name else f"{first[:1].upper()}{first[1:]}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

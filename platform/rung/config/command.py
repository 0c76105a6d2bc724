"""The command line of every job, made from the config tree: `--config FILE --section.key VALUE --help --dry-run`.

Written here since pydantic-settings, when tried, showed neither units nor bounds in its help, and answered a mistyped
key with a page of usage instead of the nearest key.
"""

import inspect
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.config.describe import Group, Setting, accepts, groups
from rung.config.load import AnySection, ConfigError, load_config, parse_scalar, to_yaml
from rung.config.logs import configure_logging
from rung.config.secrets import redacted
from rung.config.section import Section

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130

_WIDTH = 100
_KEY_WIDTH = 30
_SWITCHES = {
    "help": "show this text and stop",
    "dry-run": "print the resolved config as YAML and stop",
    "traceback": "show Python's traceback with an error (also: RUNG_TRACEBACK=1)",
}


@dataclass(frozen=True)
class Arguments:
    """A parsed command line; overrides are still text."""

    config: Path | None = None
    switches: frozenset[str] = frozenset()
    overrides: Mapping[str, str] = field(default_factory=dict)


def run_job(tree: type[AnySection], main: Callable[[AnySection], Path], argv: Sequence[str] | None = None) -> int:
    """Run a job from its command line.

    Args:
        tree: the job's config.
        main: does the work and returns the path of its summary.json, which is printed. The text of `--help` is
            the docstring of its module.
        argv: arguments; those of this process if absent.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad config or input, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    rank = int(os.environ.get("RANK", "0"))
    try:
        configure_logging(rank)
        summary = _run(tree, main, argv)
        if summary and rank == 0:
            print(summary)
    except KeyboardInterrupt:
        return _report("interrupted: give the same command again, what is finished is kept", INTERRUPTED, argv)
    except Exception as error:
        if not is_for_the_user(error):
            raise
        return _report(f"error: {error}", BAD_INPUT if is_bad_input(error) else FAILURE, argv)
    return 0


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Split a command line into the config file, switches and overrides; the last of repeated keys wins.

    Raises:
        ConfigError: a word that is no option, or an option without its value.
    """
    config, switches, overrides = None, set[str](), dict[str, str]()
    words = iter("--help" if word == "-h" else word for word in argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ConfigError(f"{word!r} on the command line: settings are given as --section.key VALUE; see --help")
        if name in _SWITCHES:
            switches.add(name)
            continue
        if not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise ConfigError(f"{word} needs a value: {word} VALUE (or {word}=VALUE); see --help")
        if name == "config":
            config = Path(value)
        else:
            overrides[name] = value
    return Arguments(config, frozenset(switches), overrides)


def parse_overrides(tree: type[Section], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Values from their text: what YAML reads where the key takes that, else the text (a run may be named 123).

    Raises:
        ConfigError: a text is not YAML.
    """
    settings = {setting.key: setting for group in groups(tree) for setting in group.settings}
    parsed: dict[str, Any] = dict(overrides)
    for key in overrides.keys() & settings.keys():
        value = parse_scalar(overrides[key]) if settings[key].annotation is not str else overrides[key]
        if accepts(settings[key], value):
            parsed[key] = value
    return parsed


def help_text(tree: type[Section], description: str, program: str) -> str:
    """Every key with its meaning, what it allows and its default, by section, in lines of at most 100 characters."""
    lines = [f"usage: {program} --config FILE [--section.key VALUE ...]", "", *description.splitlines(), ""]
    lines += _entry("--config FILE", "YAML file; keys given on the command line win over it")
    for name, meaning in _SWITCHES.items():
        lines += _entry(f"--{name}", meaning)
    for group in groups(tree):
        lines += _group_lines(group)
    lines += ["", "VALUE is read as YAML: 1e-3, true, null, [1, 2]. Relative paths are relative to the current folder."]
    return "\n".join(lines)


def _run(tree: type[AnySection], main: Callable[[AnySection], Path], argv: Sequence[str]) -> Path | None:
    arguments = parse_arguments(argv)
    if "help" in arguments.switches:
        description = inspect.getdoc(inspect.getmodule(main)) or ""
        print(help_text(tree, description, f"python {sys.argv[0]}"))
        return None
    overrides = parse_overrides(tree, arguments.overrides)
    config = load_config(tree, arguments.config, overrides, overrides_from="command line")
    if "dry-run" in arguments.switches:
        print(redacted(to_yaml(config)), end="")
        return None
    configure_logging(int(os.environ.get("RANK", "0")), _run_name(config))
    return main(config)


def _run_name(config: Section) -> str:
    """Name of the run that a config describes, for the logs; empty where it describes none."""
    run = getattr(config, "run", "")
    return Path(run).name if isinstance(run, str) else run.name


def _report(message: str, code: int, argv: Sequence[str]) -> int:
    if "--traceback" in argv or os.environ.get("RUNG_TRACEBACK", "") not in ("", "0"):
        print(redacted(traceback.format_exc()), file=sys.stderr)
    print(redacted(message), file=sys.stderr)
    return code


def is_for_the_user(error: Exception) -> bool:
    """Whether the message alone tells what to change.

    So it is for our own kinds of error, for trouble with files, and for a ValueError that our code raised. A ValueError
    out of a library may as well be a bug of ours, which needs its traceback.
    """
    if isinstance(error, OSError) or _is_ours(type(error).__module__):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and _is_ours(frame.f_globals.get("__name__", ""))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("rung", "data_prep", "__main__")


def is_bad_input(error: Exception) -> bool:
    """Whether config or data are at fault, rather than the run."""
    return isinstance(error, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError)


def _group_lines(group: Group) -> Iterator[str]:
    if group.settings:
        yield ""
        yield f"{group.key}: {group.meaning}" if group.key else "settings of this job:"
    for setting in group.settings:
        yield from _entry(f"--{setting.key}", f"{setting.meaning} [{_rule(setting)}]")


def _rule(setting: Setting) -> str:
    return f"{setting.allowed}; " + ("required" if setting.default is None else f"default {setting.default}")


def _entry(key: str, text: str) -> list[str]:
    """Key on the left, text on the right; a key too long for its column has a line of its own."""
    lines = textwrap.wrap(text, _WIDTH - _KEY_WIDTH, break_long_words=False, break_on_hyphens=False)
    left = f"  {key}"
    if len(left) >= _KEY_WIDTH:
        return [left, *(" " * _KEY_WIDTH + line for line in lines)]
    return [f"{left:{_KEY_WIDTH}}{lines[0]}", *(" " * _KEY_WIDTH + line for line in lines[1:])]

"""Mutants of the arithmetic that every result rests on, and how many of them the unit tests notice.

python -m tests.mutation [--workers N]

mutmut changes one operator, number, argument or text at a time inside functions (not in constants of a module, nor in
decorated functions), and runs the unit tests that call the function. It takes a module's name from its path, so it
works on a copy of the tree in which `rung` lies below `src`. A mutant under which the tests hang is noticed too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "mutation"
MUTMUT = Path(sys.executable).with_name("mutmut")

MODULES = (
    "data/partition",
    "data/reference",
    "model/reference",
    "training/loss",
    "training/metrics",
)
"""Below `rung`; tests/unit/FOLDER/test_NAME.py holds the tests of each."""
AT_LEAST = 85.0
"""Per cent of each module's mutants that must be noticed."""

SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {sources}
also_copy = ["data_prep"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver" # a process that has run torch's backward pass must not be forked
use_git_change_detection = false

[tool.pytest.ini_options]
pythonpath = ["src", "."]
addopts = "--import-mode=importlib"
"""


def source(module):
    return f"src/rung/{module}.py"


def tests_of(module):
    folder, name = module.split("/")
    return f"tests/unit/{folder}/test_{name}.py"


def lay_out():
    """Copy what the tests need, anew: mutmut does not see that a test has changed."""
    shutil.rmtree(TREE, ignore_errors=True)
    bare = shutil.ignore_patterns("__pycache__")
    for folder, target in (("platform/rung", "src/rung"), ("data_prep", "data_prep"), ("tests", "tests")):
        shutil.copytree(ROOT / folder, TREE / target, ignore=bare)
    sources, tests = ([of(module) for module in MODULES] for of in (source, tests_of))
    (TREE / "pyproject.toml").write_text(SETTINGS.format(sources=json.dumps(sources), tests=json.dumps(tests)))


def mutmut(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([MUTMUT, *arguments], cwd=TREE, env=environment, text=True, check=False, **options)


def outcomes(module):
    """What became of each mutant of a module."""
    from mutmut.stats import status_by_exit_code

    meta = json.loads((TREE / "mutants" / f"{source(module)}.meta").read_text())
    return {name: status_by_exit_code[code] for name, code in meta["exit_code_by_key"].items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; all cores if absent")
    options = parser.parse_args()
    lay_out()
    if (code := mutmut("run", "--max-children", str(options.workers)).returncode) != 0:
        return code
    found = {module: outcomes(module) for module in MODULES}
    for mutants in found.values():
        for name, outcome in mutants.items():
            if outcome not in ("killed", "timeout"):
                print(mutmut("show", name, capture_output=True).stdout.strip(), end="\n\n")
    print(f"{'module':<24}{'mutants':>8}{'killed':>8}{'hung':>6}{'survived':>10}{'noticed':>10}")
    low = []
    for module, mutants in found.items():
        killed, hung = (list(mutants.values()).count(outcome) for outcome in ("killed", "timeout"))
        noticed = 100 * (killed + hung) / len(mutants)
        rest = len(mutants) - killed - hung
        print(f"{module:<24}{len(mutants):>8}{killed:>8}{hung:>6}{rest:>10}{noticed:>9.1f}%")
        low += [module] if noticed < AT_LEAST else []
    if low:
        print(f"fewer than {AT_LEAST:.0f} % noticed: {', '.join(low)}", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())

"""The shape of the repository: where code may live, what may import what, and how long it may get."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNG = ROOT / "platform" / "rung"

# From low to high: a package imports from its own layer and those before it.
LAYERS = (
    {"config", "units", "reporting"},
    {"data"},
    {"model"},
    {"training"},
    {"evaluation"},
    {"inference"},
    {"sweeps"},
    {"orchestration"},
    {"studies"},
)
DATA_PREP_IMPORTS = {"config", "units", "reporting", "data"}
MAX_FILE_LINES, MAX_JOB_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 400, 60, 40, 6


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


LIBRARY = sources("platform/rung") + sources("data_prep")
ALL = LIBRARY + sources("jobs") + sources("tests")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of all imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rung_packages(path: Path) -> set[str]:
    """First names below rung that a file imports; `from rung import data` counts as data."""
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("rung.")} - {"__version__"}


def root_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


# Programs for a GPU: Triton comes with torch's CUDA builds alone, and its functions take pointers one by one.
KERNELS = RUNG / "model" / "kernels.py"
# Compiled by numba, where a function costs nothing only while it is inlined.
LOOPS = (RUNG / "model" / "rows.py", RUNG / "model" / "row_parts.py")
NEEDS_TRITON = (KERNELS, RUNG / "model" / "fused.py")


def layer(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_no_module_shadows_the_standard_platform():
    assert not list((ROOT / "platform").glob("*.py"))
    assert not list(ROOT.glob("tests/**/platform/__init__.py"))


@pytest.mark.parametrize("path", [".", "platform:."])
def test_standard_platform_wins_in_a_subprocess(path):
    report = "import platform, rung; print(platform.python_version(), rung.__version__)"
    assert run_python("-c", report, PYTHONPATH=f"{path}:platform").stdout.startswith("3.")
    done = run_python("-m", "platform", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert sys.platform.split("-")[0] in done.stdout.lower()


def test_imports_point_downwards():
    too_high = {}
    for path in LIBRARY:
        packages = rung_packages(path)
        if path.is_relative_to(RUNG):
            own = path.relative_to(RUNG).parts[0].removesuffix(".py")
            allowed = set().union(*LAYERS[: layer(own) + 1]) if own != "__init__" else set()
        else:
            allowed = DATA_PREP_IMPORTS | ({"model"} if "surrogate" in relative(path) else set())
        if not packages <= allowed:
            too_high[relative(path)] = packages - allowed
    assert not too_high


def test_jobs_and_tests_are_imported_by_nobody_and_data_prep_by_orchestration_alone():
    offenders = {}
    for path in LIBRARY:
        forbidden = {"jobs", "tests"}
        if path.is_relative_to(RUNG) and not path.is_relative_to(RUNG / "orchestration"):
            forbidden |= {"data_prep"}
        if found := root_packages(path) & forbidden:
            offenders[relative(path)] = found
    assert not offenders


def test_ray_and_mlflow_stay_in_orchestration():
    offenders = {
        relative(path): found
        for path in LIBRARY + sources("jobs")
        if not path.is_relative_to(RUNG / "orchestration") and (found := root_packages(path) & {"ray", "mlflow"})
    }
    assert not offenders


def test_core_imports_without_ray_and_mlflow():
    above = ("rung.orchestration", "rung.studies")
    modules = [
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for root, folder in ((RUNG.parent, "platform/rung"), (ROOT, "data_prep"))
        for path in sources(folder)
        if path not in NEEDS_TRITON
    ]
    core = [module for module in modules if not module.startswith(above)]
    code = (
        "import importlib, sys\n"
        "sys.modules['ray'] = sys.modules['mlflow'] = None\n"
        f"for name in {core}: importlib.import_module(name)"
    )
    done = run_python("-c", code, PYTHONPATH="platform:.")
    assert done.returncode == 0, done.stderr


def test_file_length():
    long = {}
    for path in ALL:
        lines = len(path.read_text().splitlines())
        if lines > (MAX_JOB_LINES if path.parent == ROOT / "jobs" else MAX_FILE_LINES):
            long[relative(path)] = lines
    assert not long


def test_files_are_named_after_what_they_hold():
    assert not [relative(path) for path in ALL if path.stem in ("utils", "helpers", "common")]


def test_function_length():
    long = {}
    for path in LIBRARY + sources("jobs"):
        if path in (KERNELS, *LOOPS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines, arguments = function_size(node)
                if lines > MAX_FUNCTION_LINES or arguments > MAX_ARGUMENTS:
                    long[f"{relative(path)}:{node.lineno} {node.name}"] = f"{lines} lines, {arguments} arguments"
    assert not long


def function_size(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    """Lines without the docstring, and arguments without self."""
    body = node.body
    docstring = ast.get_docstring(node, clean=False)
    docstring_lines = body[0].end_lineno - body[0].lineno + 1 if docstring else 0
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
    return node.end_lineno - node.lineno + 1 - docstring_lines, len(named)

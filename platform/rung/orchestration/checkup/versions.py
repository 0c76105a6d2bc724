"""Check of the installed packages; it needs next to none of them, so that it can tell which one is broken."""

import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import rung
from rung.orchestration.checkup.finding import Finding, Subject, ok, problem

PROJECT: Final = Path(rung.__file__).parents[2] / "pyproject.toml"
"""States which versions Rung needs; not there where Rung was installed as a wheel."""

_SHOWN: Final = ("torch", "chgnet", "ray", "mlflow", "numpy", "numba", "lmdb", "pymatgen")


def check_versions(subject: Subject) -> Finding:  # noqa: ARG001 (all checks look alike)
    """Python and every package against what Rung needs."""
    python, requirements = needed_versions()
    present = {"Python": platform.python_version()}
    wrong = [] if python.contains(present["Python"]) else [f"Python {present['Python']} (needed: {python})"]
    for requirement in requirements:
        name = requirement.name
        try:
            present[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed (needed: {requirement.specifier or 'any'})")
            continue
        if not requirement.specifier.contains(present[name], prereleases=True):
            wrong.append(f"{name} {present[name]} (needed: {requirement.specifier})")
    if wrong:
        return problem(
            "; ".join(wrong), "install what was tested: python -m pip install --constraint constraints.txt --editable ."
        )
    return ok(", ".join(f"{name} {present[name]}" for name in ("Python", *_SHOWN) if name in present))


def needed_versions() -> tuple[SpecifierSet, list[Requirement]]:
    """Versions of Python and of packages that Rung needs, without its extras."""
    if PROJECT.exists():
        project = tomllib.loads(PROJECT.read_text())["project"]
        return SpecifierSet(project["requires-python"]), [Requirement(text) for text in project["dependencies"]]
    every = [Requirement(text) for text in metadata.requires("rung") or ()]
    return SpecifierSet(metadata.metadata("rung")["Requires-Python"]), [each for each in every if each.marker is None]

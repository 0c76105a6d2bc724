"""Folders of VASP runs, at any depth: every vasprun.xml and OUTCAR, plain, gzip or bzip2, one record per ionic step.

A folder with a vasprun.xml is read from that; the OUTCAR beside it adds magnetic moments, which vasprun.xml lacks.
Without a vasprun.xml, OUTCAR gives all. Files of several runs in one folder are told apart by their endings
(vasprun.xml.relax1.gz goes with OUTCAR.relax1.gz).

The material, which the split goes by, is the first folder below source.path: relaxations and statics, and several
functionals, of one material belong in one such folder. source.materials can say otherwise for any folder.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from data_prep.functionals import known_functional
from data_prep.sources.base import RawFrame
from data_prep.sources.inputs import FileSource, InputFiles, read_materials
from data_prep.sources.raw_file import BrokenFileError
from data_prep.sources.vasp.find import Run, find_runs
from data_prep.sources.vasp.outcar import cut_outcar, read_incar
from data_prep.sources.vasp.parser import VaspParser
from data_prep.sources.vasp.run import FileFormat, Step, StepFrame
from data_prep.sources.vasp.vasprun import cut_vasprun
from rung.config.preparation import SourceConfig

logger = logging.getLogger(__name__)

_CHUNK: Final = 32  # steps; a large one with many electronic steps has about 1 MB of text


class VaspTree(FileSource):
    """Streams the ionic steps of all runs below some folders; holds one step at a time.

    A file that cannot be read, or ends early, costs its own remaining steps: they are rejected, the others kept.

    Args:
        config: of the source.
        name: of the data set.

    Raises:
        BrokenFileError: a folder or source.materials cannot be read, or there is no run.
        ValueError: source.functional is not known.
    """

    chunk = _CHUNK

    def __init__(self, config: SourceConfig, name: str) -> None:
        sizes, self._runs = find_runs(config.paths, read_materials(config.materials))
        if not self._runs:
            raise BrokenFileError(f"cannot find a vasprun.xml or an OUTCAR below source.path {', '.join(config.paths)}")
        super().__init__(name, sizes)
        self._beside = InputFiles(sizes)
        stated = None if config.functional is None else known_functional(config.functional)
        self.parser = VaspParser(name, stated, config.energy_choice)

    def frames(self) -> Iterator[RawFrame]:
        """Stream the steps, runs in the order of their places, and number them."""
        position = 0
        for run in self._runs:
            for cut in self._steps(run):
                path = (run.material, run.name, str(cut.step.number))
                yield RawFrame(path, position, cut.dump())
                position += 1

    def progress(self) -> tuple[int, int, str]:
        """Bytes of the files read, bytes of all, unit."""
        done, total, unit = super().progress()
        return done + self._beside.progress()[0], total, unit

    def facts(self) -> dict[str, Any]:
        """Hash and size of all files; reads the rest of them where a limit stopped early."""
        return super().facts() | {"runs": len(self._runs)}

    def close(self) -> None:
        """Close the files."""
        super().close()
        self._beside.close()

    def _steps(self, run: Run) -> Iterator[StepFrame]:
        form: FileFormat = "vasprun" if "vasprun" in run.files else "outcar"
        number = 0
        beside = self._outcar_steps(run) if form == "vasprun" else iter(())
        try:
            tags = self._incar_tags(run)
            file = self._files.open(run.files[form])
            for step in cut_vasprun(file) if form == "vasprun" else cut_outcar(file):
                number = step.number
                other = next(beside, None)
                yield _with_help(StepFrame(form, step), other, tags)
        except BrokenFileError as error:
            yield StepFrame(form, Step(number + 1, "", None, str(error)))

    def _outcar_steps(self, run: Run) -> Iterator[Step]:
        """The steps of an OUTCAR beside a vasprun.xml; one that cannot be read adds nothing."""
        try:
            if "outcar" in run.files:
                yield from cut_outcar(self._beside.open(run.files["outcar"]))
        except BrokenFileError as error:
            logger.warning("%s: its magnetic moments are not used", error)

    def _incar_tags(self, run: Run) -> dict[str, str]:
        """The tags of the INCAR beside a run; one that cannot be read adds none."""
        try:
            if "incar" in run.files:
                return read_incar(b"".join(self._beside.open(run.files["incar"]).lines()).decode("latin-1"))
        except BrokenFileError as error:
            logger.warning("%s: its tags are not used", error)
        return {}


def open_vasp(config: SourceConfig, name: str) -> VaspTree:
    """Open folders of VASP runs."""
    return VaspTree(config, name)


def _with_help(cut: StepFrame, other: Step | None, tags: Mapping[str, str]) -> StepFrame:
    """A step with what only OUTCAR and INCAR say: moments, and tags that old versions leave out of vasprun.xml."""
    settings = cut.step.settings
    if settings is None:
        return cut
    said = other.settings.tags if other and other.settings else {}
    settings = replace(settings, tags={**tags, **said, **settings.tags})
    text = other.text if other and not other.broken else ""
    return replace(cut, step=replace(cut.step, settings=settings), outcar=text)

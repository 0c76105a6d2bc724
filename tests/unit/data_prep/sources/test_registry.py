"""The config names a source, and every kind has what preparation asks of one."""

import pytest

from data_prep.sources.base import Source
from data_prep.sources.registry import open_source
from rung.config.preparation import SourceConfig
from tests.unit.data_prep.vasp_samples import vasprun

ASE = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 energy=-8.0\nNa 0 0 0\nCl 2 2 2\n'
CONTENT = {"mptrj": "{}", "matpes": "[]", "mp_api": "[]", "vasp": vasprun(), "ase": ASE, "atoms": "Element,PBE\nH,1\n"}
NAMES = {"vasp": "vasprun.xml", "ase": "my.set.extxyz.gz", "atoms": "my.set.csv"}


@pytest.mark.parametrize("kind", [*CONTENT, "surrogate"])
def test_every_kind_is_a_whole_source(kind, write):
    settings = {"kind": kind, "functional": "GGA"}
    if kind != "surrogate":
        settings["path"] = str(write(CONTENT[kind], NAMES.get(kind, "my.set.json.gz")))
    source: Source = open_source(SourceConfig.model_validate(settings))
    assert source.name == {"surrogate": "surrogate", "vasp": "vasprun.xml"}.get(kind, "my.set")
    assert source.chunk >= 1
    assert callable(source.parser)
    assert source.identity() == source.identity()
    for _ in zip(range(3), source.frames(), strict=False):
        pass
    assert source.progress()[2] in ("B", "records", "structures")
    assert source.facts()
    source.close()


def test_name_of_the_config_wins(write):
    config = SourceConfig(kind="mptrj", path=str(write("{}")), dataset="MPtrj")
    assert open_source(config).name == "MPtrj"

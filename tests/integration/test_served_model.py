"""`mlflow models serve`: answers over HTTP, and clear refusals that leave it running."""

import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from rung.config.sections import ModelConfig
from rung.model.weights import build, save_model
from rung.orchestration.model_package import example, save_package
from tests.integration.servers import served
from tests.unit.conftest import SMALL_MODEL


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served")
    weights = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), folder / "m.pth.tar", {})
    package = save_package(weights, folder / "package", {})
    with served(package, folder) as place:
        yield place


def ask(address, content):
    data = content if isinstance(content, bytes) else json.dumps({"inputs": content}).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text)["message"] if text.startswith("{") else text


def cell(**changes):
    return {**example(), **changes}


def crowded():
    structure = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    return structure.as_dict()


def many(number):
    side = round(number ** (1 / 3)) + 1
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:number] / side
    return {
        "numbers": [11] * number,
        "positions": (grid * 3 * side).tolist(),
        "cell": (np.eye(3) * 3 * side).tolist(),
        "pbc": [True] * 3,
    }


def unknown_element():
    raw = example()
    raw["sites"][0]["species"] = [{"element": "Qq", "occu": 1}]
    return raw


def too_heavy():
    return Structure(Lattice.cubic(4), ["Am"], [[0, 0, 0]]).as_dict()


def half_empty():
    return Structure(Lattice.cubic(4), [{"Na": 0.5}], [[0, 0, 0]]).as_dict()


REFUSED = {
    "unknown element": (lambda: [unknown_element()], "Qq"),
    "element that the model does not know": (lambda: [too_heavy()], "H to Pu"),
    "empty cell": (lambda: [cell(sites=[])], "0 atoms"),
    "overlapping atoms": (lambda: [example(), crowded()], "structure 1.*0.04 Å apart"),
    "10,000 atoms": (lambda: [many(10_000)], "10000 atoms; 1 to 2000 are allowed"),
    "all atoms in one place": (lambda: [{**many(500), "cell": (np.eye(3) * 1e-3).tolist()}], "overlap"),
    "an atom alone": (lambda: [Structure(Lattice.cubic(30), ["O"], [[0, 0, 0]]).as_dict()], "isolated"),
    "partial occupancy": (lambda: [half_empty()], "ordered"),
    "a molecule": (lambda: [{**many(2), "pbc": [False] * 3}], "periodic"),
    "a flat cell": (lambda: [{**many(2), "cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}], "volume|crystal"),
    "NaN": (
        lambda: json.dumps({"inputs": [{**many(2), "positions": [[0, 0, 0], [float("nan"), 0, 0]]}]}).encode(),
        ".",
    ),
    "another object": (lambda: [{"energy": 1}], "lattice, sites"),
    "a text": (lambda: ["NaCl"], "."),
    "no list": (lambda: "NaCl", "."),
    "too many structures": (lambda: [example()] * 300, "300 structures"),
    "no JSON": (lambda: b"{", "."),
    "damaged array": (lambda: [{"numbers": {"__ndarray__": [[2], "int64", [1]]}, "cell": []}], "no crystal structure"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_clearly_and_the_server_stays_up(address, name):
    make, words = REFUSED[name]
    status, text = ask(address, make())
    assert 400 <= status < 500, text
    assert re.search(words, text), text
    assert len(text) < 3000 or name in ("no JSON", "a text", "no list", "NaN")
    assert ask(address, [example()])[0] == 200


def test_answers_hold_every_property(address):
    status, answer = ask(address, [example(), example()])
    assert status == 200
    first, second = answer["predictions"]
    assert first == second
    assert set(first) == {"energy", "energy_per_atom", "forces", "stress", "magmoms"}

"""The fused kernels of a GPU in Triton's interpreter, which needs none: slow, but the same arithmetic.

Speed, registers and races are for tests/gpu.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton: pip install -e '.[kernels]'")


def interpreted(check):
    """Triton decides at its import whether it interprets, so a check has a process of its own."""
    command = [sys.executable, "-c", f"from tests.unit.model.interpreted import {check}; {check}()"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "platform"), str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_kernels_are_as_exact_as_float32():
    interpreted("kernels_are_as_exact_as_float32")


@pytest.mark.slow
def test_a_step_with_the_kernels_is_a_step_with_the_loops():
    interpreted("step_equals_that_of_the_loops")

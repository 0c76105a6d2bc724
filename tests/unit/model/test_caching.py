"""What is seen of functions that are compiled."""

import numba
import pytest

from rung.config.progress import told_to
from rung.model import caching


def compiled(module):
    """A function that calls another, both of the module, and neither compiled yet."""

    def inner(x):
        return x + 1

    inner.__module__ = module
    inner = caching.numba.njit(inner)

    def outer(x):
        return 2 * inner(x)

    outer.__module__ = module
    return numba.njit(outer)


@pytest.mark.parametrize(("module", "times"), [("rung.model.rows", 1), ("elsewhere", 0)])
def test_a_function_of_ours_is_compiled_in_sight_and_with_all_that_it_calls(module, times):
    function, heard = compiled(module), []
    with told_to(lambda *news: heard.append(news)):
        assert function(3) == 8
        first = len(heard)
        assert function(4) == 10
    assert len(heard) == first, "it is compiled once"
    ends = [what for what, done, total, _ in heard if done == total]
    assert ends == times * ["compiling for this processor, once"]

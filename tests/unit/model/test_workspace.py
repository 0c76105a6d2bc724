"""Memory that is used again: never by two at once, and never more of it than was needed at one time."""

from concurrent.futures import ThreadPoolExecutor

import torch

from rung.model.workspace import Workspace

MEGABYTE = 2**20


def _tensor(workspace, megabytes):
    return workspace.empty(2, megabytes, MEGABYTE // 8)


def test_memory_of_a_tensor_that_is_gone_is_used_again():
    workspace = Workspace()
    tensor = _tensor(workspace, 3)
    assert tensor.shape == (2, 3, MEGABYTE // 8)
    assert tensor.dtype == torch.float32
    address = tensor.data_ptr()
    del tensor
    assert _tensor(workspace, 3).data_ptr() == address


def test_what_something_refers_to_is_left_alone():
    workspace = Workspace()
    view = _tensor(workspace, 2).fill_(1)[1]
    product = (_tensor(workspace, 2).fill_(2).requires_grad_() ** 2).sum()  # autograd keeps the factor
    others = [_tensor(workspace, 2).fill_(0) for _ in range(5)]
    assert view.eq(1).all()
    product.backward()
    assert len({other.data_ptr() for other in others}) == 5


def test_sizes_that_change_take_no_more_memory_than_the_largest_need():
    workspace = Workspace()
    for megabytes in (4, 9, 2, 7, 3, 30, 5, 1, 12):
        tensors = [_tensor(workspace, megabytes) for _ in range(3)]
        del tensors
    assert workspace.size <= 3 * 30 * MEGABYTE


def test_small_tensors_take_none():
    workspace = Workspace()
    assert workspace.empty(2, 0, 5).shape == (2, 0, 5)
    assert workspace.empty(7).shape == (7,)
    assert workspace.size == 0


def test_threads_never_share_memory():
    workspace = Workspace()

    def unchanged(number):
        tensor = _tensor(workspace, 1).fill_(number)
        return bool(tensor.eq(number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(unchanged, range(200)))

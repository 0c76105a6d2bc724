import pytest

from rung.config.sections import LauncherConfig
from rung.orchestration.resources import Demand, demand_of, refused_trials, runs_at_once, shortage

CPU_NODE = {"CPU": 8.0, "memory": 1e9}
GPU_NODE = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("demand", "node", "expected"),
    [
        (Demand(1, 1.0, 0.0), CPU_NODE, 8),
        (Demand(1, 3.0, 0.0), CPU_NODE, 2),
        (Demand(1, 0.1, 0.0), {"CPU": 1.0}, 10),
        (Demand(1, 1.0, 1.0), CPU_NODE, 0),
        (Demand(1, 1.0, 1.0), GPU_NODE, 4),
        (Demand(1, 8.0, 1.0), GPU_NODE, 2),
        (Demand(1, 1.0, 0.25), GPU_NODE, 16),
        (Demand(1, 1.0, 0.6), GPU_NODE, 4),  # a share lies on one GPU, and two of them do not fit on it
        (Demand(1, 1.0, 0.3), {"CPU": 16.0, "GPU": 2.0}, 6),
        (Demand(1, 1.0, 3.0), GPU_NODE, 1),
        (Demand(1, 1.0, 0.0), {}, 0),
    ],
)
def test_ranks_that_fit_on_a_node(demand, node, expected):
    assert demand.fits_on(node) == expected


def test_enough_resources_is_no_shortage():
    assert shortage(Demand(6, 1.0, 1.0), [GPU_NODE, GPU_NODE]) is None


def test_shortage_says_the_arithmetic_and_the_keys():
    message = shortage(Demand(12, 2.0, 1.0), [GPU_NODE, GPU_NODE, CPU_NODE])
    assert message is not None
    for part in (
        "12 ranks x (2 CPUs, 1 GPU)",
        "24 CPUs and 12 GPUs",
        "3 nodes with 40 CPUs and 8 GPUs",
        "8 such ranks",
        "launcher.num_workers to 8",
        "launcher.cpus_per_worker or launcher.gpus_per_worker",
    ):
        assert part in message


def test_a_rank_must_fit_on_one_node_although_the_sum_would_do():
    message = shortage(Demand(1, 10.0, 0.0), [CPU_NODE, CPU_NODE])
    assert message is not None
    assert "16 CPUs" in message
    assert "0 such ranks" in message
    assert "launcher.num_workers to" not in message  # no smaller number of ranks would help


def test_gpus_are_asked_for_where_the_cluster_has_some():
    assert demand_of(LauncherConfig(), [CPU_NODE, GPU_NODE]).gpus == 1
    assert demand_of(LauncherConfig(), [CPU_NODE]).gpus == 0
    assert demand_of(LauncherConfig(gpus_per_worker=0), [GPU_NODE]).gpus == 0


@pytest.mark.parametrize(("gpus", "backend"), [(0.0, "gloo"), (0.5, "gloo"), (1.0, "nccl"), (2.0, "nccl")])
def test_backend_follows_the_gpus_of_a_rank(gpus, backend):
    assert Demand(2, 1.0, gpus).backend == backend


def test_a_rank_without_gpu_does_not_name_gpus():
    assert Demand(1, 2.0, 0.0).per_worker() == {"CPU": 2.0}
    assert Demand(1, 2.0, 0.5).per_worker() == {"CPU": 2.0, "GPU": 0.5}


def test_an_elastic_run_asks_for_its_fewest_ranks_and_passes_the_range_on():
    demand = demand_of(LauncherConfig(num_workers=(2, 8)), [CPU_NODE])
    assert demand == Demand(2, 1.0, 0.0, 8)
    assert demand.workers == (2, 8)
    assert demand_of(LauncherConfig(num_workers=3), [CPU_NODE]).workers == 3
    assert shortage(demand, [{"CPU": 2.0}]) is None
    assert shortage(demand, [{"CPU": 1.0}]) is not None


@pytest.mark.parametrize(
    ("demand", "nodes", "expected"),
    [
        (Demand(2, 1.0, 0.0), [{"CPU": 4.0}], 2),
        (Demand(2, 1.0, 0.0), [{"CPU": 3.0}], 1),
        (Demand(2, 1.0, 0.0), [{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 2.0}], 2),  # ranks of a run may spread
        (Demand(3, 1.0, 0.0), [{"CPU": 2.0}], 0),
        (Demand(1, 1.0, 0.5), [GPU_NODE], 8),
        (Demand(1, 4.0, 0.5), [GPU_NODE], 4),
    ],
)
def test_runs_at_once(demand, nodes, expected):
    assert runs_at_once(demand, nodes) == expected


def test_more_trials_than_fit_are_refused_with_the_arithmetic():
    demand = Demand(2, 1.0, 0.0)
    assert refused_trials(2, demand, [{"CPU": 4.0}]) is None
    assert refused_trials(2, demand, [{"CPU": 3.0}]) == (
        "sweep.concurrent 2 asks for 2 x 2 ranks x (1 CPU, 0 GPUs), but the cluster's 1 node can hold 3 such ranks, so"
        " 3 // 2 = 1 trial at once: lower sweep.concurrent, or leave it out"
    )

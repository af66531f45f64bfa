"""As many trials at once as memory holds, and what is said of it."""

from dataclasses import replace
from math import inf

import pytest
from transformers import LlamaConfig

from common.errors import SearchError
from common.machine import Machine
from distill.train.settings import ResolvedTraining
from search.cluster.fitting import Free, Need, fitted
from search.cluster.resources import Node, Resources
from search.cluster.trial_memory import TrialMemory
from search.config.sections import ResourceConfig
from search.space.space import Space
from tests.search.conftest import SIZES

GB = 1e9
SMALLER = ("lower --training.micro_batch (8 now)",)
NEED = Need(0.9 * GB, 0.0, "61M parameters, 8 sequences of 512, vocabulary 32,000", smaller=SMALLER)
HERE = Resources(4, 1, 0.0, (Node(4, 0),))


def on_this_machine(memory: float, **given: int | float) -> tuple[Resources, list[str]]:
    resources = replace(HERE, concurrent=int(given.get("concurrent", 4)))
    return fitted(
        resources,
        NEED,
        free=Free(memory * GB, 0.0),
        config=ResourceConfig(**given),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("memory", "fit"), [(2.9, 3), (1.8, 2), (1.7, 1), (100.0, 4)])
def test_as_many_as_memory_holds_in_one_line(memory: float, fit: int) -> None:
    resources, (line,) = on_this_machine(memory)
    assert resources == replace(HERE, concurrent=fit)
    assert line == f"memory: about 0.9 GB a trial ({NEED.what}); {fit} of 4 fit {memory} GB"


def test_where_not_one_fits_one_is_tried_and_it_is_said() -> None:
    resources, (line, warning) = on_this_machine(0.5)
    assert resources.concurrent == 1 and "0 of 4 fit 0.5 GB" in line
    assert warning.startswith("warning: by this estimate not even one trial fits the memory")
    assert "--training.micro_batch" in warning and "\n" not in warning


def test_what_the_user_says_is_kept_with_a_warning() -> None:
    resources, (line, warning) = on_this_machine(1.9, concurrent=3)
    assert resources.concurrent == 3 and "2 of 3 fit" in line
    assert warning.startswith("warning: --resources.concurrent is 3, above what fits")
    resources, lines = on_this_machine(2.8, concurrent=3)
    assert resources.concurrent == 3 and len(lines) == 1


def test_the_user_s_memory_of_a_trial_takes_the_place_of_the_estimate() -> None:
    resources, (line,) = on_this_machine(4.1, memory_gb=2.0)
    assert resources.concurrent == 2
    assert line == "memory: about 2.0 GB a trial (--resources.memory_gb); 2 of 4 fit 4.1 GB"
    for wrong in (0.0, -1.0, inf, float("nan")):
        with pytest.raises(SearchError, match="--resources.memory_gb is .*; it must be above 0"):
            ResourceConfig(memory_gb=wrong)


def test_on_a_cluster_every_node_holds_what_its_own_memory_does() -> None:
    nodes = (Node(8, 0, 2 * GB), Node(2, 0, 50 * GB), Node(8, 0, 0.5 * GB))
    resources, (line,) = fitted(
        Resources(18, 1, 0.0, nodes), NEED, free=None, config=ResourceConfig()
    )
    assert (resources.concurrent, resources.memory) == (4, NEED.memory), (
        "or one node would get more"
    )
    assert line.endswith("; 4 of 18 fit 52.5 GB on 3 nodes")
    above = replace(resources, concurrent=5, memory=0)
    kept, _ = fitted(above, NEED, free=None, config=ResourceConfig(concurrent=5))
    assert (kept.concurrent, kept.memory) == (5, 0), "Ray would start the fifth never"


@pytest.mark.parametrize(
    ("each", "gpus", "concurrent", "share"),
    [(5.0, 0.25, 8, 0.25), (9.0, 0.25, 4, 0.5), (30.0, 0.25, 2, 1.0), (9.0, 1.0, 2, 1.0)],
)
def test_no_more_share_a_gpu_than_fit_it(
    each: float, gpus: float, concurrent: int, share: float
) -> None:
    """Two GPUs with 20 GB free; fewer on each, wherever Ray puts them."""
    resources = Resources(round(2 / gpus), 1, gpus, (Node(16, 2),))
    need = replace(NEED, gpu=each * GB)
    found, lines = fitted(
        resources, need, free=Free(100 * GB, 20 * GB), config=ResourceConfig(gpus=gpus)
    )
    assert (found.concurrent, found.gpus) == (concurrent, share)
    assert lines[0].startswith(f"GPU memory: about {each} GB a trial")
    assert any("not even one trial fits a GPU" in line for line in lines) == (each > 20)


def test_trials_that_share_a_gpu_as_the_user_says_are_kept() -> None:
    resources, need = Resources(4, 1, 0.25, (Node(16, 1),)), replace(NEED, gpu=9 * GB)
    given = ResourceConfig(gpus=0.25, concurrent=4)
    found, lines = fitted(resources, need, free=Free(100 * GB, 20 * GB), config=given)
    assert found == resources and sum("it is kept" in line for line in lines) == 1


def test_ray_and_the_dashboards_need_some_of_what_is_free() -> None:
    machine = Machine(cpus=4, let=4, memory=8 * 10**9, whole_memory=10 * 10**9)
    plain, watched = (
        Free.now(machine, dashboard=dashboard, on_gpu=False).memory for dashboard in (False, True)
    )
    assert watched < plain < 7.5 * GB
    assert Free.now(replace(machine, memory=10**8), dashboard=False, on_gpu=False).memory == 0


def test_the_need_is_that_of_the_student_that_takes_most(small_space: Space) -> None:
    config = LlamaConfig(**SIZES)
    memory = TrialMemory(
        config, ResolvedTraining(batch=8, micro_batch=4, precision="fp32"), 32, 0.0
    )
    need = Need.of([small_space], memory, on_gpu=False)
    pairs = list(zip(small_space.feasible, small_space.parameters, strict=True))
    assert need.memory == pytest.approx(max(memory.process(a, size) for a, size in pairs))
    assert need.gpu == 0 and need.what.endswith("parameters, 4 sequences of 32, vocabulary 101")
    on_gpu = Need.of([small_space], memory, on_gpu=True)
    assert on_gpu.gpu > 0 and on_gpu.memory > need.memory


def test_small_trials_on_a_small_machine_are_not_lowered(small_space: Space) -> None:
    """Two of a tiny student, on a machine of 4 GB of which 3 are free."""
    memory = TrialMemory(LlamaConfig(**SIZES), ResolvedTraining(batch=2, precision="fp32"), 64, 0.0)
    free = Free.now(Machine(2, 2, 3 * 10**9, 4 * 10**9), dashboard=False, on_gpu=False)
    need = Need.of([small_space], memory, on_gpu=False)
    resources, _ = fitted(
        Resources(2, 1, 0.0, (Node(2, 0),)), need, free=free, config=ResourceConfig()
    )
    assert resources.concurrent == 2

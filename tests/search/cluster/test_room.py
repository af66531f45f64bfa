"""A run that wanted for memory, told from one that was killed by hand."""

import pytest

from distill.train.settings import ResolvedTraining
from search.cluster.ray_errors import KILLED, NODE_LOST, OUT_OF_MEMORY, of_memory
from search.cluster.resources import Resources
from search.cluster.room import Room, too_large

MORE = " (more in ray-errors.log)"


def test_a_killed_worker_wanted_for_memory_where_the_kernel_killed_one() -> None:
    kills = [7]
    room = Room(Resources(4, 1, 0.0), lambda: kills[0])
    assert room.explained(KILLED + MORE) == KILLED + MORE, "that was before"
    kills[0] += 2
    assert room.explained(NODE_LOST) == NODE_LOST
    assert room.explained("OSError: full") == "OSError: full"
    assert room.explained(KILLED + MORE) == OUT_OF_MEMORY + MORE
    assert room.explained(KILLED) == OUT_OF_MEMORY
    assert room.explained(KILLED) == KILLED, "both are known of two others"


def test_no_more_run_at_once_than_ran_beside_it() -> None:
    room = Room(Resources(4, 1, 0.5), lambda: 0)
    assert room.lowered("MemoryError", 3) == (
        "MemoryError; put back, and no more than 3 at once from now on"
    )
    assert room.lowered(OUT_OF_MEMORY, 1) and room.limit == 1
    assert room.lowered("MemoryError", 2) and room.limit == 1, "those still run that began before"
    assert room.lowered("MemoryError", 0) is None and room.limit == 1


def test_runs_on_gpus_of_their_own_share_the_machine_s_memory_alone() -> None:
    room = Room(Resources(4, 1, 1.0), lambda: 0)
    assert room.lowered("OutOfMemoryError: CUDA out of memory", 3) is None and room.limit == 4
    assert room.lowered(OUT_OF_MEMORY, 3) and room.limit == 3


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (OUT_OF_MEMORY + MORE, True),
        ("OutOfMemory: a forward pass of 8 sequences does not fit the memory of cuda", True),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("_ArrayMemoryError: Unable to allocate 3 GiB", True),
        ("MemoryError", True),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", True),
        ("AcceleratorError: CUDA error: out of memory", True),
        (KILLED, False),
        ("OSError: [Errno 28] No space left on device", False),
        ("ValueError: MemoryError is a word of mine", False),
        ("", False),
    ],
)
def test_what_wants_for_memory(reason: str, expected: bool) -> None:
    assert of_memory(reason) == expected


def test_what_does_not_fit_alone_is_said_with_the_fields_that_change_it() -> None:
    training = ResolvedTraining(batch=8, precision="fp32")
    found = too_large("trial-0003", OUT_OF_MEMORY, training=training)
    assert found.startswith("trial-0003 does not fit the memory by itself: the worker ")
    for field in ("--training.micro_batch (8 now)", "--training.gradient_checkpointing"):
        assert field in found
    saved = ResolvedTraining(batch=8, micro_batch=1, gradient_checkpointing=True, precision="fp32")
    found = too_large("trial-0003", OUT_OF_MEMORY, training=saved)
    assert "micro_batch" not in found and "gradient_checkpointing" not in found
    assert "--block or --space" in found

"""What a study computes once, on all of its slots."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.progress import left_in_words
from search.cluster.resources import Resources
from search.workers.access import WorkspaceAccess
from search.workers.pieces import PieceTask
from search.workers.slots import SlotPool
from search.workers.tasks import TaskPool
from workspace.models import LoadedModel, ModelSource
from workspace.pieces import Piece, PieceProgress, Words, compute_here

LOGGER = logging.getLogger(__name__)
BESIDE_WEIGHTS = 1.5e9
"""Bytes that a process of a slot takes beside the weights of a model that reads text: imports, and
what a pass computes."""
FULL = 0.85
"""Share of its GPUs' memory that a spread model may take on a slot, beside what a pass computes."""


def worth_spreading(resources: Resources) -> bool:
    """Whether the slots together have more to compute with than the driver's own process, which
    has all processors of its machine, or a GPU."""
    if resources.concurrent < 2:
        return False
    if resources.gpus:
        return sum(node.gpus for node in resources.nodes) > 1
    return resources.concurrent * resources.cpus >= torch.get_num_threads()


class SlotCompute:
    """Computes pieces on all slots at once; each loads the model once, and lets it go at the end.

    A `Compute`. A process that dies costs one piece, which is computed again.
    """

    def __init__(
        self,
        slots: SlotPool,
        access: WorkspaceAccess | None,
        log: Path,
        words: Words = left_in_words,
    ):
        """`access` is None where there are no other nodes; `log` takes Ray's own words on tasks
        that failed."""
        self.slots, self.access, self.log, self.words = slots, access, log, words
        self.seconds_beside = 0.0
        """Seconds that slots computed beside the first, which a clock does not count."""

    def __call__(self, model: LoadedModel, pieces: Sequence[Piece]) -> None:
        """Compute the pieces, in the order in which they are given, as far as they are started.

        Raises SearchStopped where one fails, or where the model does not fit a slot's memory.
        """
        if not pieces:
            return
        resources = self.slots.room.resources
        count = min(self.slots.room.limit, fitting(model, resources), len(pieces))
        if count < 2:
            compute_here(model, pieces, self.words)
            return
        LOGGER.info(f"preparation: {len(pieces)} pieces on {count} slots{self._said_of_nodes}")
        model.release()  # the memory is the slots' now
        unloaded = model.like(ModelSource(model.source.directory))
        labels = labels_of(pieces)

        def start(slot: Any, piece: Piece) -> Any:
            task = PieceTask(
                label=labels[piece.folder],
                passes=piece.passes(),
                folder=piece.folder,
                model=unloaded,
                resources=resources,
                access=self.access,
            )
            return slot.write.options(name=task.label).remote(task)

        began = time.monotonic()
        progress = PieceProgress(pieces, count, self.words)
        failed = "the preparation could not be finished"
        pool = TaskPool("preparation", failed, self.slots, self.log, most=count)
        for piece, _ in pool.results(pieces, start=start):
            progress.finished(piece)
        self.seconds_beside += (count - 1) * (time.monotonic() - began)
        self.slots.let_go()

    @property
    def _said_of_nodes(self) -> str:
        if self.access is None:
            return ""
        return (
            "; a node that does not see the workspace or the model takes a copy of the model, and "
            "sends what it computes"
        )


def labels_of(pieces: Sequence[Piece]) -> dict[Path, str]:
    """Readable names of pieces, by their folders: each numbered among those of its kind."""
    totals, numbers, labels = Counter(piece.kind for piece in pieces), Counter[str](), {}
    for piece in pieces:
        kind = piece.kind
        numbers[kind] += 1
        labels[piece.folder] = f"preparation {kind} {numbers[kind]} of {totals[kind]}"
    return labels


def fitting(model: LoadedModel, resources: Resources) -> int:
    """How many slots hold the model at once, by the memory that is known of their nodes; at least
    one."""
    if not resources.nodes:  # nothing is known of them
        return resources.concurrent
    need = model.source.parameters * model.dtype.itemsize
    if resources.gpus:
        whole = torch.cuda.get_device_properties(0).total_memory
        if model.placement:  # over the GPUs of each slot; what does not fit there, over all
            return resources.concurrent if need < FULL * resources.gpus * whole else 1
        per_gpu = max(1, int(whole / (need + BESIDE_WEIGHTS)))
        shared = min(per_gpu, int(1 / resources.gpus + 1e-9)) if resources.gpus < 1 else 1
        return max(1, sum(node.gpus for node in resources.nodes) * shared)
    need += int(BESIDE_WEIGHTS)
    held = (min(node.room(resources.cpus, 0), node.memory / need) for node in resources.nodes)
    return max(1, sum(int(count) for count in held))

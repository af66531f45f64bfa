"""Replace-one-block scores on all slots of a study: groups of layers, each in a task of its own."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.files import append_rows, read_rows
from common.progress import Progress, duration, tell
from pruning import ATTENTION, FFN, Block
from pruning.slicing import part_name
from search.library.block_scores import BlockScore, BlockScorer, ScoringPlan
from search.library.slots import Slots, groups_of
from search.workers.access import WorkspaceAccess
from search.workers.staging import assets_here

LOGGER = logging.getLogger(__name__)
TASKS_PER_SLOT = 4
"""A kill loses no more than a task of each slot."""


@dataclass(frozen=True)
class BlockScores:
    """What the parent loses with other blocks, one layer at a time."""

    parent: Mapping[int, Block]
    """The parent's layers, by their numbers in the teacher; its own blocks score 0."""
    values: Mapping[tuple[int, str, str], float]
    """(layer, sub-block, size as `part_name` has it) -> score."""

    def of(self, layer: int, block: Block) -> float:
        """Score of the parent with this block in a layer: the sum of those of its attention and of
        its FFN, each measured beside the parent's other sub-block."""
        own = self.parent[layer]
        return sum(
            self.values[layer, kind, part_name(block.part(kind))]
            for kind in (ATTENTION, FFN)
            if block.part(kind) != own.part(kind)
        )


def _score(
    plan: ScoringPlan, layers: tuple[int, ...], access: WorkspaceAccess | None
) -> list[BlockScore]:
    """Scores of the blocks of some layers."""
    here = replace(plan, assets=assets_here(plan.assets, access))
    return BlockScorer(here, layers).scores()


def score_blocks(plan: ScoringPlan, path: Path, *, slots: Slots) -> BlockScores:
    """Scores of all blocks of the parent's layers; those of an earlier start are read from `path`,
    a file with a line of JSON for each.

    Ray must be up. Raises SearchStopped where tasks fail or do not fit the memory.
    """
    parent = plan.parent_blocks
    known = _read(path)
    left = [layer for layer in sorted(parent) if not _wanted(plan, layer) <= known.keys()]
    progress = Progress(sum(_passes(plan, layer) for layer in left))
    pool = slots.pool("block scores", failed="blocks could not be scored")
    groups = groups_of(left, TASKS_PER_SLOT * slots.room.limit) if left else []
    done = 0
    tell(LOGGER, work="block scores", done=0.0, total=100.0, unit="%")
    for layers, scores in pool.called(
        _score, groups, arguments=lambda layers: (plan, layers, slots.access)
    ):
        append_rows(path, map(asdict, scores))
        known |= {(each.layer, each.sub_block, each.size): each.score for each in scores}
        done += sum(_passes(plan, layer) for layer in layers)
        tell(LOGGER, done=100 * done / progress.total)
        seconds = progress.left(done)
        LOGGER.info(
            f"block scores: {done / progress.total:.0%} measured"
            + (f"; about {duration(seconds)} left of them" if seconds else "")
        )
    return BlockScores(parent, known)


def _wanted(plan: ScoringPlan, layer: int) -> set[tuple[int, str, str]]:
    """The scores of a layer."""
    return {(layer, kind, part_name(part)) for kind, part in plan.replacements(layer)}


def _passes(plan: ScoringPlan, layer: int) -> int:
    """Passes through single layers that the scores of a layer take: its own and those above it."""
    return len(plan.replacements(layer)) * (len(plan.variants) - layer)


def _read(path: Path) -> dict[tuple[int, str, str], float]:
    """Scores of an earlier start."""
    return {(row["layer"], row["sub_block"], row["size"]): row["score"] for row in read_rows(path)}

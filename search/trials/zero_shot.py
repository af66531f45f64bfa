"""Zero-shot filter: score cut candidates before any training, and leave out the worst of the space.

Cutting is a copy, so that the KL of an untrained student costs one evaluation. It does not rank
students after distillation (Minitron, arXiv 2407.14679), but the worst of them never recover.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from common.files import append_rows, read_rows
from common.fingerprint import fingerprint
from common.progress import Progress, Throttle, duration, tell
from distill import Corpus, Targets, evaluate
from pruning import Architecture
from search.space.space import Space
from search.workers.access import WorkspaceAccess
from search.workers.candidate import SearchAssets
from search.workers.slots import SlotPool
from search.workers.staging import assets_here
from search.workers.tasks import TaskPool
from workspace.layout import RAY_ERRORS

LOGGER = logging.getLogger(__name__)
NEIGHBOURS = 4
"""Scored architectures whose mean stands for one that was not scored."""
PER_TASK = 4
"""Architectures that a worker scores in one go."""
LINE_SECONDS = 10.0
"""Between two lines of progress."""
Scores = dict[Architecture, tuple[float, float]]
"""(KL, seconds that it took) by architecture."""


@dataclass(frozen=True)
class ZeroShot:
    """KL before training of some architectures of a space."""

    scores: dict[Architecture, float]
    """Forward KL to the teacher, nats per token."""
    tokens: int
    """Tokens that each was scored on."""
    seconds: float
    """Of all workers together."""

    @property
    def useful(self) -> dict[Architecture, float]:
        """Those that can be compared: a cut that overflows has none, the teacher itself has 0."""
        return {shape: kl for shape, kl in self.scores.items() if 0 < kl < np.inf}

    def survivors(self, space: Space, keep: float) -> frozenset[Architecture]:
        """The best share of the space; one that was not scored stands where its neighbours do.

        The anchors are judged like all others here; they are tried first all the same. Where no
        score can be compared, all survive.
        """
        if not self.useful:
            return frozenset(space.feasible)
        known = list(self.useful)
        tree = cKDTree(np.array([space.position(shape) for shape in known]))
        logs = np.log([self.useful[shape] for shape in known])
        _, nearest = tree.query(space.positions, k=min(NEIGHBOURS, len(known)))
        guessed = logs[nearest].reshape(len(space.feasible), -1).mean(1)
        own = dict.fromkeys(self.scores, np.inf) | dict(zip(known, logs, strict=True))
        values = np.array([own.get(s, g) for s, g in zip(space.feasible, guessed, strict=True)])
        count = max(1, round(keep * len(values)))
        best = np.argsort(values, kind="stable")[:count]
        return frozenset(space.feasible[index] for index in best)


def pool(space: Space, count: int, *, seed: int) -> list[Architecture]:
    """Architectures to score: the anchors, and others drawn evenly; all where there are few."""
    anchors = [shape for shape in space.anchors().values() if shape]
    generator = np.random.default_rng([seed, 5])
    drawn = [space.feasible[i] for i in generator.permutation(len(space.feasible))]
    return list(dict.fromkeys([*anchors, *drawn]))[:count]


@dataclass(frozen=True, kw_only=True)
class ZeroShotPlan:
    """How candidates are scored before training."""

    assets: SearchAssets
    """What they are cut out of and scored on."""
    sequences: int
    """Selection sequences that each is scored on, at most."""
    access: WorkspaceAccess | None
    """How workers on other nodes reach the workspace."""
    directory: Path
    """Where scores are kept."""

    @property
    def scores_file(self) -> Path:
        """File of the scores, a line of JSON for each."""
        assets = self.assets
        targets = assets.selection_targets
        library = [] if assets.library is None else [assets.library.name]
        name = fingerprint(assets.sorted_teacher.name, targets.name, self.sequences, *library)
        return self.directory / f"zero-shot-{name}.jsonl"


def untrained_kl(shape: Architecture, assets: SearchAssets, *, sequences: int) -> float:
    """KL to the teacher of a student as it is cut, on so many sequences of the selection split."""
    corpus, targets = Corpus(assets.corpus), Targets(assets.selection_targets)
    blocks, weights = corpus.blocks("selection")[:sequences], corpus.weights("selection")
    student: Any = assets.source.cut(shape)
    evaluation = evaluate(
        student.to(torch.device(assets.device)),
        blocks,
        targets=targets,
        precision=assets.training.precision,
        weights=None if weights is None else weights[:sequences],
    )
    return evaluation.means()["kl"]


def _score(plan: ZeroShotPlan, shapes: list[Architecture]) -> tuple[list[float], float]:
    """KL before training of each, and the seconds that it took."""
    started = time.monotonic()
    assets = assets_here(plan.assets, plan.access)
    values = [untrained_kl(shape, assets, sequences=plan.sequences) for shape in shapes]
    return values, time.monotonic() - started


def score_zero_shot(shapes: list[Architecture], plan: ZeroShotPlan, *, slots: SlotPool) -> ZeroShot:
    """Score `shapes` on the slots; scores of an earlier start are read from the plan's directory.

    Ray must be up. Raises SearchStopped where tasks fail or do not fit the memory.
    """
    known = _read(plan.scores_file)
    pool = TaskPool(
        name="zero-shot",
        failed="candidates could not be scored before training",
        slots=slots,
        log=plan.directory / RAY_ERRORS,
    )
    _Scorer(plan, known).score([shape for shape in shapes if shape not in known], pool)
    scores = {shape: known[shape][0] for shape in shapes}
    seconds = sum(known[shape][1] for shape in shapes)
    corpus = Corpus(plan.assets.corpus)
    count = min(plan.sequences, len(corpus.blocks("selection")))
    return ZeroShot(scores, count * int(corpus.block), seconds)


class _Scorer:
    """Workers that score some architectures each."""

    def __init__(self, plan: ZeroShotPlan, known: Scores):
        """New scores are added to those `known`, and to the file of the plan."""
        self.plan, self.known = plan, known
        self.progress, self.line_due = Progress(), Throttle(LINE_SECONDS)

    def score(self, shapes: list[Architecture], pool: TaskPool) -> None:
        """Score all of them."""
        left = self.progress.total = len(shapes)
        groups = [shapes[i : i + PER_TASK] for i in range(0, len(shapes), PER_TASK)]
        work, total = "candidates before training", float(len(shapes))
        tell(LOGGER, work=work, done=0.0, total=total, unit="candidates")
        for group, (values, seconds) in pool.called(_score, groups, arguments=self._arguments):
            self._keep(group, values, seconds=seconds / len(values))
            left -= len(group)
            tell(LOGGER, done=float(len(shapes) - left))
            if self.line_due() or not left:
                self._log_progress(len(shapes) - left)

    def _arguments(self, group: list[Architecture]) -> tuple[Any, ...]:
        return self.plan, group

    def _keep(self, group: list[Architecture], values: list[float], *, seconds: float) -> None:
        """Add the scores of a group to the file; `seconds` are those of each."""
        scores = dict(zip(group, values, strict=True))
        self.known |= {shape: (kl, seconds) for shape, kl in scores.items()}
        append_rows(
            self.plan.scores_file,
            [{**shape.to_dict(), "kl": kl, "seconds": seconds} for shape, kl in scores.items()],
        )

    def _log_progress(self, done: int) -> None:
        left, total = duration(self.progress.left(done)), int(self.progress.total)
        LOGGER.info(f"zero-shot: {done} of {total} candidates; about {left} left of them")


def _read(path: Path) -> Scores:
    """(score, seconds) by architecture."""
    return {
        Architecture.from_dict(row): (float(row["kl"]), float(row["seconds"]))
        for row in read_rows(path)
    }

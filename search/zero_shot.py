"""The mouth of the funnel: candidates scored before any training, to leave out dead zones.

Cutting is a copy, so that the KL of an untrained student costs one evaluation. It does not rank
what comes after distillation (Minitron, arXiv 2407.14679), but the worst of it never recover.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from scipy.spatial import cKDTree

from distill import Corpus, Targets, evaluate
from pruning import Architecture
from search.candidate import Assets, cut_candidate
from search.desk import local
from search.errors import SearchStopped
from search.files import Files
from search.ray_errors import RAY_ERRORS, noted, of_memory
from search.room import Room
from search.space import Space
from search.workspace import fingerprint

NEIGHBOURS = 4
"""Scored architectures whose mean stands for one that was not scored."""
PER_TASK = 4
"""Architectures that a worker scores in one go."""


@dataclass(frozen=True)
class ZeroShot:
    """KL before training of some architectures of a space."""

    scores: dict[Architecture, float]
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


def pool(space: Space, count: int, seed: int) -> list[Architecture]:
    """Architectures to score: the anchors, and others drawn evenly; all where there are few."""
    anchors = [shape for shape in space.anchors().values() if shape]
    generator = np.random.default_rng([seed, 5])
    drawn = [space.feasible[i] for i in generator.permutation(len(space.feasible))]
    return list(dict.fromkeys([*anchors, *drawn]))[:count]


@ray.remote(max_retries=3)
def _score(
    assets: Assets,
    shapes: list[Architecture],
    sequences: int,
    threads: int,
    files: Files | None,
) -> tuple[list[float], float]:
    """KL before training of each, and the seconds that it took."""
    torch.set_num_threads(threads)
    started = time.monotonic()
    assets = local(assets, files)
    corpus, targets = Corpus(assets.corpus), Targets(assets.selection_targets)
    blocks, weights = corpus.blocks("selection")[:sequences], corpus.weights("selection")
    weights = None if weights is None else weights[:sequences]
    values = []
    for shape in shapes:
        student: Any = cut_candidate(assets.sorted_teacher, shape)
        student = student.to(torch.device(assets.device))
        found = evaluate(
            student, blocks, targets=targets, precision=assets.precision, weights=weights
        )
        values.append(found.means()["kl"])
    return values, time.monotonic() - started


def score_zero_shot(
    shapes: list[Architecture],
    assets: Assets,
    sequences: int,
    room: Room,
    files: Files | None,
    directory: Path,
    say: Callable[[str], None],
) -> ZeroShot:
    """Score `shapes` on Ray, which must be up; what was scored before is read from `directory`."""
    name = fingerprint(assets.sorted_teacher.name, assets.selection_targets.name, sequences)
    path = directory / f"zero-shot-{name}.jsonl"
    known = _read(path)
    missing = [shape for shape in shapes if shape not in known]
    groups = [missing[i : i + PER_TASK] for i in range(0, len(missing), PER_TASK)]
    slots, threads = room.slots, room.slots.cpus
    remote = _score.options(num_cpus=threads, num_gpus=slots.gpus, memory=slots.memory)
    pending: dict[Any, list[Architecture]] = {}
    started, said = time.monotonic(), time.monotonic()
    while groups or pending:
        while groups and len(pending) < room.limit:
            group = groups.pop(0)
            pending[remote.remote(assets, group, sequences, threads, files)] = group
        (ready, *_), _ = ray.wait(list(pending), num_returns=1)
        try:
            values, seconds = ray.get(ready)
        except RayError as problem:
            reason = room.explained(noted(directory / RAY_ERRORS, "zero-shot scores", problem))
            put_back = of_memory(reason) and room.lowered(reason, len(pending) - 1)
            if put_back:
                say(f"zero-shot: {put_back}")
                groups.insert(0, pending.pop(ready))
                continue
            raise SearchStopped(
                f"candidates could not be scored before training: {reason}; mend the cause and "
                "start the same command again"
            ) from None
        with path.open("a") as file:
            for shape, kl in zip(pending.pop(ready), values, strict=True):
                known[shape] = kl, seconds / len(values)
                row = {**shape.to_dict(), "kl": kl, "seconds": seconds / len(values)}
                file.write(json.dumps(row) + "\n")
        if time.monotonic() - said > 10 or not (pending or groups):
            said = time.monotonic()
            done = len(missing) - sum(map(len, [*pending.values(), *groups]))
            left = (said - started) / done * (len(missing) - done)
            say(f"zero-shot: {done} of {len(missing)} candidates; about {left:.0f} s left")
    scores = {shape: known[shape][0] for shape in shapes}
    spent = sum(known[shape][1] for shape in shapes)
    block = int(Corpus(assets.corpus).block)
    count = min(sequences, len(Corpus(assets.corpus).blocks("selection")))
    return ZeroShot(scores, count * block, spent)


def _read(path: Path) -> dict[Architecture, tuple[float, float]]:
    """(score, seconds) by architecture; a line cut off by a kill is left out."""
    known: dict[Architecture, tuple[float, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row: Mapping[str, Any] = json.loads(line)
            known[Architecture.from_dict(row)] = float(row["kl"]), float(row["seconds"])
        except (ValueError, KeyError):
            continue
    return known

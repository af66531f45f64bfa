"""Forecast of a study in runs, tokens and time: printed before it starts, kept within its time.

The number of full runs is asked of `FinalSelection` itself, with as many students as there can be,
so that the plan is what is run.
"""

import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.progress import counted
from distill.train import Distillation, ResolvedTraining, TrainingData
from pruning import Architecture
from pruning.families import TRAINING_PASSES
from search.config.names import CANDIDATE, EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT, UNCORRECTED
from search.config.objectives import Objectives
from search.config.sections import HalvingConfig
from search.config.study import SearchConfig
from search.finals.selection import FinalSelection, LastStage
from search.study.early_stopping import Rungs
from search.workers.candidate import SearchAssets
from search.workers.full_runs import FullRun

WARM_UP_STEPS, TIMED_STEPS = 1, 2
LARGER = "larger"
"""Source of a run that is cut from a larger member of the family, whichever it is."""


def trial_tokens(
    halving: HalvingConfig, rungs: Rungs, tokens: int, *, trials: int, spared: int
) -> tuple[int, int]:
    """Least and most training tokens of so many `trials` of `tokens`.

    As few as the first are left only where the search learns nothing; `spared` are not stopped
    early, and a pruner of the user's own stops who knows how many.
    """
    most = tokens * trials
    if halving.own_pruner:
        return most, most
    return round(rungs.expected_tokens(tokens, trials, never_stopped=spared)), most


@dataclass(frozen=True)
class LastRuns:
    """Runs after the trials, as many as there can be, each training once."""

    stage: LastStage
    """Amounts that the user asked for."""
    rounds: tuple[tuple[FullRun, ...], ...]
    """One after the other; those of one round run at the same time where there is room."""
    seldom: int
    """Full runs beside these, which come only where a baseline beats every candidate after its
    short run."""

    @classmethod
    def of(cls, config: SearchConfig, step_tokens: int, *, staged: bool) -> "LastRuns":
        """`step_tokens` are those of an optimiser step; `staged` says that the best may be cut from
        a larger member of the family too."""
        stage = LastStage.of(config, step_tokens)
        selection = FinalSelection.largest(stage, Objectives.of(config.objectives).several)
        ranking = [selection.run(CANDIDATE, shape) for shape in selection.candidates]
        winner = ranking[0]

        def trained(runs: Iterable[FullRun]) -> tuple[FullRun, ...]:
            kept = selection.scored if stage.repeats_trials else {}
            return tuple(
                run
                for run in runs
                if run.from_scratch or run.shuffle or run.architecture not in kept
            )

        rounds = [
            trained(selection.first_round()),
            (replace(winner, source=LARGER),) if staged else (),
            trained(selection.second_round(ranking)),
            (FullRun(UNCORRECTED, winner.architecture),) if config.correction.tokens else (),
        ]
        better = dict.fromkeys(selection.baselines().values(), 0.0)
        promoted = selection.promoted(dict.fromkeys(selection.candidates, 1.0) | better)
        shapes = [run.architecture for run in promoted if run.architecture not in selection.scored]
        return cls(stage, tuple(r for r in rounds if r), len(shapes))

    @property
    def count(self) -> int:
        """Students that are trained and written, at most."""
        return len(self.all_runs) + self.seldom

    @property
    def tokens(self) -> int:
        """Training tokens of all rounds together."""
        return sum(self.tokens_of(run) for run in self.all_runs)

    def tokens_of(self, run: FullRun) -> int:
        """Training tokens of one of them."""
        return run.tokens or self.stage.full_tokens

    def describe(self) -> str:
        """How many of them are full, and how long the others are."""
        stage, longer = self.stage, self.stage.scratch_tokens
        tokens = [self.tokens_of(run) for run in self.all_runs]
        full = tokens.count(stage.full_tokens)
        parts = [f"{_runs(full, 'full')} of {stage.full_tokens:,} tokens"]
        if stage.short and (short := tokens.count(stage.short)):
            parts.append(f"{_runs(short, 'short')} of baselines of {stage.short:,}")
        if longer and longer in tokens and longer != stage.full_tokens:
            parts.append(f"1 run from random weights of {longer:,}")
        return ", ".join(parts)

    def seconds(self, pace: "Pace", slots: int) -> float:
        """Of all rounds, one after the other, `slots` runs at once."""
        return sum(pace.seconds(map(self.tokens_of, runs), slots) for runs in self.rounds)

    @property
    def all_runs(self) -> list[FullRun]:
        """Those of all rounds, in order."""
        return [run for runs in self.rounds for run in runs]


def _runs(count: int, kind: str) -> str:
    return counted(count, f"{kind} run")


def shown_evidence(stage: LastStage) -> str:
    """The baselines that the winner will be compared with, in words."""
    names = "uniform shrink, random architecture and random initialisation"
    seeds = counted(stage.seeds, "seed")
    return {
        EVIDENCE_FULL: f"full: {names} after full runs, {seeds}",
        EVIDENCE_SHORT: f"short: {names} after {stage.short_tokens:,} tokens; winners in full, "
        f"{seeds}",
        EVIDENCE_NONE: f"none: the winner is held against nothing; winners in full, {seeds}",
    }[stage.evidence]


@dataclass(frozen=True)
class Pace:
    """Speed of runs."""

    seconds_per_token: float
    """Wall-clock seconds of a run, its evaluations included, for each training token."""
    starting: float = 0.0
    """Seconds that every run takes beside."""

    def seconds(self, tokens: Iterable[float], slots: int) -> float:
        """How long runs of so many tokens take, `slots` at once, each begun when a slot is free."""
        ends = [0.0] * slots
        for length in tokens:
            begun = heapq.heappop(ends)
            heapq.heappush(ends, begun + self.starting + length * self.seconds_per_token)
        return max(ends)

    @classmethod
    def timed(
        cls, assets: SearchAssets, shape: Architecture, *, tokens: int, evaluated: int
    ) -> "Pace":
        """Of a run of `shape` on this machine, by a few of its steps; nothing is kept of them.

        The run has `tokens`; its evaluations together read `evaluated` more. Raises what
        training raises.
        """
        begun = time.monotonic()
        student: Any = assets.source.cut(shape)
        student.to(torch.device(assets.device))
        started = time.monotonic() - begun
        pace = cls.of_steps(student, assets.training_data(), assets.training, tokens=tokens)
        share = 1 + evaluated / TRAINING_PASSES / tokens
        return cls(pace.seconds_per_token * share, started + pace.starting)

    @classmethod
    def of_steps(
        cls, student: Any, data: TrainingData, training: ResolvedTraining, *, tokens: int
    ) -> "Pace":
        """Of a run of so many tokens by a few of its steps, without evaluations; the student has
        learnt from them. Raises what training raises."""
        settings = replace(training, compile=False)  # compiling takes longer than the steps
        step = settings.batch * data.block
        enough = max(tokens, (WARM_UP_STEPS + TIMED_STEPS) * step)
        begun = time.monotonic()
        run = Distillation(student, data, training=settings, tokens=enough)
        run.advance(WARM_UP_STEPS)
        warm = time.monotonic()
        run.advance(TIMED_STEPS)
        return cls((time.monotonic() - warm) / (TIMED_STEPS * step), warm - begun)

"""Final selection: the students that are distilled in full, their baselines, and the winner."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from common.errors import SearchStopped
from pruning import Architecture, Block
from search.config.names import (
    CANDIDATE,
    EVIDENCE_FULL,
    EVIDENCE_NONE,
    EVIDENCE_SHORT,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
)
from search.config.study import SearchConfig
from search.finals.candidates import (
    best_candidates,
    best_of_other_kind,
    even_shrink_of,
    front_candidates,
    random_architecture,
    sequence_scores,
    tied_candidates,
)
from search.space.anchors import UNIFORM
from search.study.record import Record
from search.workers.full_runs import FullResult, FullRun


@dataclass(frozen=True)
class LastStage:
    """Amounts of the last stage, as the user asked for them."""

    evidence: str
    """One of EVIDENCE."""
    winners: int
    """Candidates to distil in full."""
    ties: int
    """Most candidates beside these that tie with the last of them."""
    seeds: int
    """Training seeds of those that are compared."""
    finalist_seeds: int
    """Training seeds of every candidate that is distilled in full."""
    short_tokens: int
    """Of a short run, in whole optimiser steps."""
    full_tokens: int
    """Training tokens of a full run."""
    repeats_trials: bool
    """Whether a full run is what the trial of its architecture was, step by step."""
    scratch_tokens: int | None = None
    """Of the run from random weights, where the user set them."""
    per_layer: bool = False
    """Whether students whose layers differ are held against those whose layers are alike."""

    @classmethod
    def of(cls, config: SearchConfig, step_tokens: int) -> "LastStage":
        """`step_tokens` are those of an optimiser step."""
        short_steps = max(1, config.short_tokens // step_tokens)
        return cls(
            evidence=config.evidence,
            winners=config.winners,
            ties=config.ties,
            seeds=config.full_seeds,
            finalist_seeds=config.finalist_seeds,
            short_tokens=short_steps * step_tokens,
            full_tokens=config.full_tokens,
            repeats_trials=short_steps == max(1, config.full_tokens // step_tokens),
            scratch_tokens=config.scratch_tokens,
            per_layer=bool(config.space.per_layer),
        )

    @property
    def short(self) -> int | None:
        """Tokens of a short run as `FullRun` has them: None where they are those of a full one."""
        return None if self.repeats_trials else self.short_tokens


@dataclass(frozen=True)
class FinalSelection:
    """The students of a study's last stage: candidates and baselines."""

    stage: LastStage
    """How much of it is run."""
    candidates: list[Architecture]
    """To be distilled in full, best first by the short run; of several objectives, the knee of the
    front first."""
    uniform: Architecture
    """The uniform shrink, a baseline."""
    random: Architecture | None
    """One architecture of the band, drawn by the seed alone from those that are neither candidates
    nor the uniform shrink; None where there is no other."""
    tied: list[Architecture]
    """Those of the candidates that are there because they cannot be told from the last winner."""
    scored: Mapping[Architecture, NDArray[np.float64]]
    """Selection KL of each sequence after the short run, of the trials that came to its end."""
    along_a_front: bool = False
    """Whether the candidates are trade-offs of several objectives, not rivals."""
    sources: dict[Architecture, str] = field(default_factory=dict)
    """Of a family: the larger member that a student is cut from where that was better."""

    @classmethod
    def of(cls, record: Record, stage: LastStage) -> "FinalSelection":
        """Choose from the scored trials of `record`."""
        several = record.objectives.several
        winners = stage.winners
        choose = front_candidates if several else best_candidates
        candidates = choose(record, winners)
        tied = [] if several else tied_candidates(record, winners, most=stage.ties)
        candidates = [*candidates, *tied]
        if stage.per_layer:
            candidates += best_of_other_kind(record, candidates)
        anchor = record.space.anchors()[UNIFORM]
        assert anchor is not None, "a band with any architecture has a uniform shrink"
        uniform = even_shrink_of(record, candidates[0]) if several else anchor
        random = random_architecture(record, {*candidates, uniform})
        scored = sequence_scores(record)
        return cls(stage, candidates, uniform, random, tied, scored, several)

    @classmethod
    def certain(cls, record: Record, stage: LastStage) -> list[FullRun]:
        """Full runs that will be made whatever the trials say: with whole evidence, every seed of
        the uniform shrink. Not of several objectives, which have a shrink of their own."""
        if stage.evidence != EVIDENCE_FULL or record.objectives.several or stage.repeats_trials:
            return []
        uniform = record.space.anchors()[UNIFORM]
        assert uniform is not None, "a band with any architecture has a uniform shrink"
        return [FullRun(UNIFORM, uniform, shuffle) for shuffle in range(stage.seeds)]

    @classmethod
    def largest(cls, stage: LastStage, several: bool) -> "FinalSelection":
        """One of as many students as there can be, to plan with before there are any."""
        count = stage.winners + (0 if several else stage.ties)
        shapes = [Architecture(number, 0, 0, 0, 0) for number in range(1, count + 3)]
        *candidates, uniform, random = shapes
        if stage.per_layer:
            candidates.append(replace(uniform, blocks=(Block(0, 0, 0),)))
        trials = candidates if several else [*candidates, uniform]
        scored = {shape: np.zeros(1) for shape in trials}
        return cls(stage, candidates, uniform, random, [], scored, several)

    def run(self, role: str, shape: Architecture, *, shuffle: int = 0) -> FullRun:
        """A full run of a student, cut from where it is best cut from."""
        return FullRun(role, shape, shuffle, source=self.sources.get(shape, ""))

    def short_run(self, role: str, shape: Architecture) -> FullRun:
        """The run that a trial of this architecture would be."""
        scratch = role == RANDOM_INITIALISATION
        return FullRun(role, shape, from_scratch=scratch, tokens=self.stage.short)

    def scratch(self, shape: Architecture, shuffle: int = 0) -> FullRun:
        """A run from random weights, as long as those of the other baselines or as asked for."""
        tokens = self.stage.scratch_tokens
        if tokens is None and self.stage.evidence == EVIDENCE_SHORT:
            tokens = self.stage.short
        return FullRun(RANDOM_INITIALISATION, shape, shuffle, from_scratch=True, tokens=tokens)

    def baselines(self) -> dict[str, Architecture]:
        """The baselines that are cut, and are no candidates themselves, by name."""
        named = {UNIFORM: self.uniform, RANDOM_ARCHITECTURE: self.random}
        if self.stage.evidence == EVIDENCE_NONE:
            return {}
        return {n: shape for n, shape in named.items() if shape and shape not in self.candidates}

    def role_of(self, shape: Architecture) -> str:
        """The baseline that it is, or candidate."""
        roles = {shape: role for role, shape in self.baselines().items()}
        return roles.get(shape, CANDIDATE)

    def first_round(self) -> list[FullRun]:
        """Full runs of the candidates, and runs of their baselines, full or short."""
        runs = [
            FullRun(CANDIDATE, shape, shuffle)
            for shuffle in range(self.stage.finalist_seeds)
            for shape in self.candidates
        ]
        for role, shape in self.baselines().items():
            if self.stage.evidence == EVIDENCE_FULL:
                runs.append(FullRun(role, shape))
            elif shape not in self.scored:
                runs.append(self.short_run(role, shape))
        return runs

    def promoted(self, short_kl: Mapping[Architecture, float]) -> list[FullRun]:
        """Full runs of baselines that are better than every candidate after the short run.

        `short_kl` are selection KLs of candidates and baselines, where they are known.
        """
        known = [short_kl[shape] for shape in self.candidates if shape in short_kl]
        rivals = not self.along_a_front and self.stage.evidence == EVIDENCE_SHORT
        if not known or not rivals or self.stage.repeats_trials:
            return []
        return [
            FullRun(role, shape)
            for role, shape in self.baselines().items()
            if short_kl.get(shape, np.inf) < min(known)
        ]

    def ranked(self, results: Mapping[FullRun, FullResult]) -> list[FullRun]:
        """The candidates by selection KL after full distillation, best first; of several
        objectives, as they were chosen. A baseline stands before them where it is the best of all.

        Raises SearchStopped where nothing came through.
        """
        kl = _mean_kls(results)
        finished = [shape for shape in self.candidates if shape in kl]
        if not self.along_a_front:
            finished.sort(key=lambda shape: kl[shape])
            others = [shape for shape in self.baselines().values() if shape in kl]
            best = min([*finished, *others], key=lambda shape: kl[shape], default=None)
            finished = [best, *finished] if best in others else finished
        if not finished:
            raise SearchStopped(
                "the loss of every candidate diverged in full distillation; start a new --study "
                "with a lower --training.learning_rate"
            )
        return [self.run(self.role_of(shape), shape) for shape in finished]

    def second_round(self, ranking: list[FullRun]) -> list[FullRun]:
        """More seeds of those that are compared, and the winner's shape from random weights."""
        winner = ranking[0].architecture
        evidence, runs = self.stage.evidence, []
        if evidence != EVIDENCE_NONE:
            runs.append(self.scratch(winner))
        if evidence == EVIDENCE_SHORT and winner not in {*self.scored, *self.baselines().values()}:
            runs.append(self.short_run(CANDIDATE, winner))
        compared = [run.architecture for run in ranking[:2]]
        if self.stage.per_layer:
            shapes = [run.architecture for run in ranking if not run.from_scratch]
            best = {shape.per_layer: shape for shape in reversed(shapes)}
            compared += [shape for shape in best.values() if shape not in compared]
        if evidence == EVIDENCE_FULL and self.uniform not in compared:
            compared.append(self.uniform)
        for shuffle in range(1, self.stage.seeds):
            runs += [self.run(self.role_of(shape), shape, shuffle=shuffle) for shape in compared]
        return runs

    def short_runs(self, ranking: list[FullRun]) -> list[FullRun]:
        """The short runs of baselines, and of a winner whose trial was stopped early."""
        runs = [*self.first_round(), *self.second_round(ranking)]
        return [run for run in runs if run.tokens == self.stage.short and run.tokens is not None]

    def with_scratch(
        self, ranking: list[FullRun], results: Mapping[FullRun, FullResult]
    ) -> list[FullRun]:
        """The ranking with the run from random weights first, should it be the best of all.

        Only if it is as long as the others: a longer one shows how many tokens it needs.
        """
        scratch = self.scratch(ranking[0].architecture)
        equally_long = scratch.tokens in (None, self.stage.full_tokens)
        if self.along_a_front or scratch not in results or not equally_long:
            return ranking
        own, best = (results[run].selection.means()["kl"] for run in (scratch, ranking[0]))
        return [scratch, *ranking] if own < best else ranking


def _mean_kls(results: Mapping[FullRun, FullResult]) -> dict[Architecture, float]:
    """Selection KL over the seeds of full runs of cut students that have the first of them."""
    cut = {run: r for run, r in results.items() if run.tokens is None and not run.from_scratch}
    values: dict[Architecture, list[float]] = {}
    for run, result in cut.items():
        values.setdefault(run.architecture, []).append(result.selection.means()["kl"])
    first = {run.architecture for run in cut if run.shuffle == 0}
    means = {shape: float(np.mean(kls)) for shape, kls in values.items()}
    return {shape: kl for shape, kl in means.items() if shape in first and isfinite(kl)}

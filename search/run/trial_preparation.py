"""Preparation of one student's trials: twins left out, anchors first, zero-shot filter."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from pruning import Architecture
from search.config.objectives import Objectives
from search.finals.selection import LastStage
from search.overview import SCORES, stage_of
from search.per_layer.combinations import Round
from search.run.context import PreparedStudy
from search.samplers.propose import Proposer
from search.space.space import Space
from search.study.early_stopping import Rungs
from search.study.policy import TrialPolicy, anchor_lines
from search.study.queue import TrialQueue
from search.study.stopping import EarlyStopping
from search.trials.zero_shot import ZeroShot, ZeroShotPlan, pool, score_zero_shot

LOGGER = logging.getLogger(__name__)


def trial_policy(
    study: PreparedStudy, space: Space, *, queue: TrialQueue, stage: LastStage
) -> tuple[TrialPolicy, ZeroShot | None]:
    """Policy of the trials, with the scores of untrained candidates if there are any."""
    config = study.context.config
    space = _without_twins(space, study)
    anchors = space.anchors()
    for line in anchor_lines(anchors, queue.trials()):
        LOGGER.info(line)
    scored = _scored_untrained(study, space, queue)
    useful = {} if scored is None else scored.useful
    allowed = None if scored is None else _survivors(study, space, scored=scored)
    policy = TrialPolicy(
        space=space,
        propose=Proposer(space, config.sampler, config.seed, useful, allowed),
        seed=config.seed,
        objectives=Objectives.of(config.objectives),
        stopping=_stopping(study, stage),
        anchors=anchors,
        zero_shot=useful,
        allowed=allowed,
    )
    return policy, scored


def with_combinations(policy: TrialPolicy, rounds: Sequence[Round]) -> TrialPolicy:
    """The policy that tries the combinations of blocks too, before any proposal."""
    solutions: dict[str, Architecture | None] = {}
    zero_shot: dict[Architecture, float] = {}
    for found in rounds:
        solutions |= found.trials
        zero_shot |= found.zero_shot
    return replace(policy, solutions=solutions, zero_shot={**policy.zero_shot, **zero_shot})


def _without_twins(space: Space, study: PreparedStudy) -> Space:
    """Without architectures whose contiguous span is the least important layers anyway."""
    if len(space.choices["contiguous"]) < 2:
        return space
    source = study.assets.source

    def is_twin(shape: Architecture) -> bool:
        other = replace(shape, contiguous=0)
        return bool(shape.contiguous) and source.kept_layers(shape) == source.kept_layers(other)

    return space.without(is_twin)


def _scored_untrained(study: PreparedStudy, space: Space, queue: TrialQueue) -> ZeroShot | None:
    """KL of candidates before training; None where the user asks for none."""
    context, funnel = study.context, study.context.config.funnel
    if not funnel.candidates:
        return None
    study.clock.begin(stage_of(SCORES, queue.member))
    return score_zero_shot(
        pool(space, funnel.candidates, seed=context.config.seed),
        ZeroShotPlan(
            assets=study.assets,
            sequences=funnel.sequences,
            access=study.access,
            directory=context.workspace.root,
        ),
        slots=study.single_slots,
    )


def _survivors(study: PreparedStudy, space: Space, *, scored: ZeroShot) -> frozenset[Architecture]:
    """Architectures that the scores before training leave in."""
    survivors = scored.survivors(space, study.context.config.funnel.keep)
    LOGGER.info(
        f"zero-shot: {len(scored.scores)} candidates scored untrained on {scored.tokens:,} "
        f"tokens each; {len(survivors):,} of {len(space.feasible):,} architectures may be tried"
    )
    return survivors


def _stopping(study: PreparedStudy, stage: LastStage) -> EarlyStopping:
    """By the rungs of short runs, or by the user's own pruner."""
    halving, step = study.context.config.halving, study.context.step_tokens
    rungs = Rungs.of_settings(halving, stage.short_tokens // step, step_tokens=step)
    return EarlyStopping(rungs, study.context.study if halving.own_pruner else None)

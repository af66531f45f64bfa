from collections.abc import Callable
from typing import Any

import optuna
import pytest
from transformers import LlamaConfig

from distill.recipes.reports import CurvePoint, RunReport
from search.config.budget import BudgetConfig
from search.config.sampler import SamplerSettings
from search.config.space import SpaceConfig
from search.database.coordination import Coordination
from search.samplers.propose import Proposer
from search.space.budget import Budget
from search.space.costs import CostModel
from search.space.space import Space
from search.study.early_stopping import Rungs
from search.study.policy import Anchors, TrialPolicy
from search.study.queue import TrialQueue
from search.study.record import Record
from search.study.stopping import EarlyStopping

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "tie_word_embeddings": True,
}

TPE = SamplerSettings("tpe")
NO_RUNGS = Rungs((), 2)
NO_ANCHORS: Anchors = {}


def build_space(config: Any, share: float = 0.5, tolerance: float = 0.05, **choices: Any) -> Space:
    given = BudgetConfig(parameters=share, tolerance=tolerance)
    costs = CostModel.of(config, given, block=32)
    return Space.build(config, SpaceConfig(**choices), budget=Budget.of(given, costs), costs=costs)


@pytest.fixture(scope="session")
def sizes() -> dict[str, Any]:
    return dict(SIZES)


@pytest.fixture(scope="session")
def space_of() -> Callable[..., Space]:
    return build_space


@pytest.fixture(scope="session")
def space() -> Space:
    return build_space(LlamaConfig(**SIZES))


@pytest.fixture(scope="session")
def small_space() -> Space:
    """A handful of architectures."""
    return build_space(
        LlamaConfig(**SIZES),
        0.6,
        0.4,
        layers=[3, 4, 5, 6],
        hidden=[48, 64],
        heads=[4, 8],
        ffn=[48, 72],
    )


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="minimize")


@pytest.fixture
def record_on() -> Callable[..., Record]:
    """A record as a fresh driver opens it: nothing running is its own."""

    def make(
        study: optuna.Study,
        space: Space,
        *,
        sampler: SamplerSettings = TPE,
        seed: int = 0,
        rungs: Rungs = NO_RUNGS,
        anchors: Anchors = NO_ANCHORS,
        coordination: Coordination | None = None,
        own_pruner: bool = False,
        max_retries: int = 2,
    ) -> Record:
        policy = TrialPolicy(
            space,
            Proposer(space, sampler, seed),
            seed,
            stopping=EarlyStopping(rungs, study if own_pruner else None),
            anchors=anchors,
        )
        coordination = coordination or Coordination(study, None, token="driver")
        return Record(TrialQueue(study, coordination, max_retries=max_retries), policy)

    return make


@pytest.fixture
def result_of() -> Callable[..., RunReport]:
    """What a worker reports after its evaluations at the tokens of `kls`."""

    def make(kls: dict[int, float], done: bool = False) -> RunReport:
        curve = [
            CurvePoint(tokens, kl, kl=kl, ce=kl + 1, top1_agreement=0.5)
            for tokens, kl in kls.items()
        ]
        return RunReport(
            tokens=curve[-1].tokens,
            resumed_tokens=0,
            seconds=2.0,
            busy_seconds=1.0,
            curve=curve,
            done=done,
        )

    return make

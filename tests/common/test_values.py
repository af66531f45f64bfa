"""Numbers and texts that no setting may hold, given from Python as from the command line."""

import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import DistillError, SearchError
from distill.loss.settings import StateSettings
from distill.train.settings import TrainingSettings
from experiments.distill.config import DistillConfig, WarmStart
from search.config.space import SpaceConfig
from search.config.study import SearchConfig


def test_infinity_takes_limits_away() -> None:
    training = TrainingSettings(clip_norm=math.inf)
    config = SearchConfig("t", "c", training=training, targets_gb=math.inf)
    assert config.training.clip_norm == config.targets_gb == math.inf


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"training": TrainingSettings(lm_weight=math.inf)},
            "--training.lm_weight is inf; it must",
        ),
        ({"training": TrainingSettings(learning_rate=1e300)}, "--training.learning_rate is 1e+300"),
        ({"targets_gb": math.nan}, "--targets_gb is nan"),
        ({"checkpoint_seconds": math.nan}, "--checkpoint_seconds is nan"),
        ({"seed": 2**63}, "--seed has a number of 19 digits; it must be below 2^63"),
        ({"space": SpaceConfig(layers=[1, 10**30])}, "--space.layers has a number of 31 digits"),
        ({"space": SpaceConfig(multiple_of={"ffn": 2**64})}, "--space.multiple_of has a number"),
        ({"study": "\udcff"}, "--study is '\\udcff', which is no text"),
        ({"study": "x" * 600}, "--study has 600 letters; a database keeps 512"),
        ({"workspace": Path("x" * 256)}, "--workspace has a part of 256 bytes"),
        ({"workspace": Path("/x" * 3000)}, "--workspace has 6000 bytes; a path may have 4000"),
        (
            {"teacher": "~no-such-user/x"},
            "--teacher is ~no-such-user/x, but this machine has no us",
        ),
        ({"corpus": ["c", "~no-such-user"]}, "--corpus is ~no-such-user, but"),
        ({"winners": 10**6}, "--winners is 1000000; it must be from 1 to 1,000"),
        ({"time_budget": "9" * 400}, "--time_budget is '999"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_values_that_nothing_can_use(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SearchError) as refused:
        SearchConfig(**{"teacher": "t", "corpus": "c", **settings})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "name", ["weight_decay", "lm_weight", "temperature", "clip_norm", "average"]
)
def test_nan_is_no_training_setting(name: str) -> None:
    given: dict[str, Any] = {name: math.nan}
    with pytest.raises(DistillError, match=f"{name} is nan"):
        TrainingSettings(**given)


def test_a_distillation_is_refused_before_it_begins() -> None:
    given = "t", "s", "c", Path("o")
    with pytest.raises(SearchError, match="--states.weight is inf"):
        DistillConfig(*given, states=StateSettings(weight=math.inf))
    for rate in (math.nan, 0.0, -1.0):
        with pytest.raises(SearchError, match="--warm_start.learning_rate is"):
            DistillConfig(*given, warm_start=WarmStart(learning_rate=rate))
    with pytest.raises(DistillError, match="draws is 65536; it must be from 1 to 65,535"):
        TrainingSettings(draws=2**16)

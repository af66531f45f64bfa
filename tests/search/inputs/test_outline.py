"""Sizes of a study that follow from its settings and the teacher's configuration."""

from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import DistillError
from distill.train import TrainingSettings
from search.config import ResourceConfig, SearchConfig
from search.inputs.outline import block_of, training_of

TEACHER: Any = SimpleNamespace(positions=64)


def config(**given: Any) -> SearchConfig:
    return SearchConfig(teacher="teacher", corpus="corpus", **given)


@pytest.mark.parametrize(
    "given", [{"full_workers": 2}, {"resources": ResourceConfig(workers=2), "full_workers": 1}]
)
def test_a_batch_that_processes_cannot_share_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DistillError, match="batch is 3, which 2 workers cannot share"):
        block_of(config(training=TrainingSettings(batch=3), **given), TEACHER)


def test_a_default_batch_is_one_that_all_processes_share() -> None:
    given = config(full_workers=3, resources=ResourceConfig(workers=2), full_tokens=500_000)
    assert block_of(given, TEACHER) == 64
    batch = training_of(given, 64, precision="fp32").batch
    assert batch % 6 == 0
    with pytest.raises(DistillError, match="batch is 20, which 3 workers cannot share"):
        training_of(given, 64, precision="fp32", known_batch=20)

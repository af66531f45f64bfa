"""What settings become for a run, and that it is written as it always was."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from distill import ResolvedTraining, TrainingSettings, default_batch, default_rate

RECORDED: dict[str, Any] = {
    "learning_rate": None,
    "batch": 16,
    "micro_batch": None,
    "schedule": "cosine",
    "warmup_share": 0.05,
    "warmup_steps": None,
    "decay_share": 0.2,
    "final_rate_share": 0.05,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "average": None,
    "loss": "forward-kl",
    "temperature": 1.0,
    "lm_weight": 0.0,
    "targets": "auto",
    "draws": 50,
    "topk": 64,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "compile": False,
}
"""Of the defaults, as studies and runs have it in their fingerprints."""


def test_resolved_settings_are_recorded_as_before() -> None:
    training = TrainingSettings().resolved(1_638_400, 256, precision="fp32")
    assert list(asdict(training).items()) == list(RECORDED.items())
    assert ResolvedTraining(**RECORDED) == training


@pytest.mark.parametrize(
    ("given", "known", "workers", "batch"),
    [(8, 3, 1, 8), (None, 3, 2, 3), (None, None, 1, 9), (None, None, 4, 12)],
)
def test_the_batch_is_the_users_or_the_runs_or_what_leaves_enough_steps(
    given: int | None, known: int | None, workers: int, batch: int
) -> None:
    settings = TrainingSettings(batch=given, average=0.9)
    assert default_batch(400 * 9 * 32, 32) == 9
    training = settings.resolved(
        400 * 9 * 32, 32, precision="bf16", known_batch=known, workers=workers
    )
    assert asdict(training) == asdict(replace(settings, batch=batch, precision="bf16"))


def test_the_peak_rate_follows_the_student_unless_it_is_given() -> None:
    training = ResolvedTraining(batch=1, precision="fp32")
    assert training.peak_rate(10**6) == default_rate(10**6)
    assert replace(training, learning_rate=0.5).peak_rate(10**6) == 0.5

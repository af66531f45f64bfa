"""Estimates of memory and time beside what a study measured."""

import pytest
from transformers import LlamaConfig

from distill.train.settings import ResolvedTraining
from pruning import architecture_of
from search.cluster.trial_memory import TrialMemory
from search.finals.estimates import MeasuredRun, estimates
from search.needs.comparison import PlannedMeasured
from search.results.ledger import COMPARED, FULL, TRIALS, Cost, Ledger, LedgerEntry
from tests.search.conftest import SIZES

CONFIG = LlamaConfig(**SIZES)
MEMORY = TrialMemory(CONFIG, ResolvedTraining(batch=8, precision="fp32"), 32, 0.0)


def test_each_figure_is_held_against_its_own() -> None:
    ledger = Ledger(
        (
            LedgerEntry(TRIALS, Cost(student_flops=4e9, evaluation_flops=1e9, seconds=4.0)),
            LedgerEntry(COMPARED, Cost(student_flops=2e9, seconds=1.0)),
            LedgerEntry(FULL, Cost(student_flops=4e9, seconds=5.0)),
        )
    )
    runs = [MeasuredRun(0.8e9, 900_000_000), MeasuredRun(1e9, 700_000_000), MeasuredRun(2e9, 0)]
    found = estimates(runs, ledger, trial_speed=1e9, full_speed=2e9)
    assert found.memory_bytes == PlannedMeasured(1e9, 900_000_000), "of what was measured"
    assert found.trial_seconds == PlannedMeasured(5.0, 4.0)
    assert found.full_seconds == PlannedMeasured(3.0, 6.0)
    lines = found.lines()
    assert lines[1] == "planned, measured: trials 5.00, 4.00 device-seconds (+25%)"
    assert len(lines) == 3 and "GB" in lines[0]


def test_what_is_not_known_is_not_said() -> None:
    runs = [MeasuredRun(1e9, 0)]  # of a version of before
    found = estimates(runs, Ledger(), trial_speed=None, full_speed=None)
    assert found.memory_bytes is None and found.lines() == []


def test_of_a_gpu_only_what_torch_allocates_is_compared() -> None:
    shape = architecture_of(CONFIG)
    parts = MEMORY.parts(shape, 1e6, on_gpu=True)
    allocated = parts.total - parts.allocator - parts.process
    assert MEMORY.peak(shape, 1e6, on_gpu=True) == pytest.approx(float(allocated))

"""Whether a run fits a device, which settings make it fit, and memory by part."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import LlamaConfig

from common.errors import SearchError
from distill.train.settings import ResolvedTraining
from pruning import architecture_of, parameter_count
from search.cluster.trial_memory import TrialMemory
from search.needs.memory import MemoryParts
from search.plan.fit import Fit

GB = 1e9
CONFIG = LlamaConfig(
    vocab_size=32_000,
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=12,
    num_attention_heads=16,
    num_key_value_heads=4,
)
SHAPE, SIZE = architecture_of(CONFIG), int(parameter_count(CONFIG, architecture_of(CONFIG)))


def parts_of(memory: TrialMemory) -> MemoryParts:
    return memory.parts(SHAPE, SIZE, on_gpu=True)


def fit(free: float, **training: Any) -> Fit:
    settings = ResolvedTraining(batch=16, precision="bf16", **training)
    return Fit(
        what="a run",
        memory=TrialMemory(CONFIG, settings, 1024, 0.0),
        parts_of=parts_of,
        free=free,
        gpu=True,
        last_resort="share it among {count}",
    )


def size(**training: Any) -> float:
    return float(fit(0.0, **training).parts.total)


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("training", [{}, {"micro_batch": 1}, {"optimizer": "adamw-8bit"}])
def test_the_parts_of_a_run_are_all_that_it_takes(on_gpu: bool, training: dict[str, Any]) -> None:
    memory = fit(0.0, **training).memory
    parts = memory.parts(SHAPE, SIZE, on_gpu=on_gpu)
    whole = memory.on_gpu(SHAPE, SIZE) if on_gpu else memory.process(SHAPE, SIZE)
    assert float(parts.total) == pytest.approx(float(whole))
    assert sum(parts.shown.values()) == pytest.approx(float(whole))
    assert parts.optimizer == SIZE * (2 if "optimizer" in training else 8)


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch": 8},
        {"micro_batch": 1},
        {"gradient_checkpointing": True},
        {"micro_batch": 1, "gradient_checkpointing": True},
        {"micro_batch": 1, "gradient_checkpointing": True, "optimizer": "adamw-8bit"},
    ],
)
def test_what_is_said_to_fit_does(change: dict[str, Any]) -> None:
    """The first that fits is named, and it is no larger than the one that is known to."""
    free = size(**change) * 1.0001
    with pytest.raises(SearchError) as refused:
        fit(free).require()
    said = str(refused.value)
    named = said.partition("; give ")[2].partition(", with which")[0]
    options = dict(part.split() for part in named.split(" and "))
    values: dict[str, Any] = {"true": True, "adamw-8bit": "adamw-8bit"}
    given = {
        name.removeprefix("--training."): values.get(value) or int(value)
        for name, value in options.items()
    }
    assert size(**given) <= free < size()
    fit(free, **given).require()


def test_what_no_setting_makes_fit_says_how_many_devices_would() -> None:
    least = {"micro_batch": 1, "gradient_checkpointing": True, "optimizer": "adamw-8bit"}
    free = size(**least) * 0.9
    with pytest.raises(SearchError, match=r"whatever --training.micro_batch .*share it among \d"):
        fit(free).require()
    with pytest.raises(SearchError) as refused:
        fit(free).require()
    count = int(str(refused.value).rpartition(" ")[2])
    alone = fit(free, micro_batch=1, gradient_checkpointing=True).memory
    enough, too_few = (
        float(parts_of(replace(alone, devices=devices)).total) for devices in (count, count - 1)
    )
    assert enough <= free < too_few


def test_devices_share_what_is_there_between_steps_alone() -> None:
    parts = MemoryParts(weights=8.0, gradients=4.0, optimizer=16.0, activations=5.0, logits=2.0)
    held = parts.held(slack=1.1, process=3.0)
    half = held.shared(2)
    assert (half.weights, half.activations, half.logits, half.process) == (4.0, 5.0, 2.0, 3.0)
    assert float(half.total) == pytest.approx(1.1 * (28 / 2 + 7) + 3.0)
    assert held.shared(1).total == pytest.approx(held.total)

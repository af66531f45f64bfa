"""Timing of students on the device: prefill of a context, and one decoding step after it."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from common.errors import SearchError
from pruning import Architecture, family_of, parameter_count, student_config
from search.space.latency import DECODE, PREFILL, TIMES, LatencySetting

PIECE = 0.05
"""A student's turn takes at least so many seconds of each kind, or the most calls."""
MOST_CALLS = 10
OF_PREFILL = 0.25
"""Decoding steps take at least so much of the time of the prefill before them."""
NO_MEMORY = ("allocate memory", "Storage size")
"""What PyTorch says on a CPU that has not the memory; on a GPU it has an error of its own."""
ALIGNED = 64
"""Parameters start at multiples of so many values, as kernels like it."""


@dataclass(frozen=True)
class Timed:
    """A student to be timed."""

    architecture: Architecture
    """Its shape."""
    kept: tuple[int, ...]
    """The teacher's layer of each of its layers; one may come several times."""


@contextmanager
def timing(setting: LatencySetting) -> Iterator[None]:
    """With the threads of the setting and without gradients.

    Raises SearchError where the device has too little memory.
    """
    try:
        with threads(setting.threads), torch.inference_mode():
            yield
    except torch.OutOfMemoryError as problem:
        raise SearchError(
            f"latency of {setting} does not fit into the device's memory; lower --budget.batch or "
            "--budget.context, or give --budget.latency_table"
        ) from problem
    except RuntimeError as problem:  # what a CPU raises where it has not the memory
        if not any(word in str(problem) for word in NO_MEMORY):
            raise
        raise SearchError(
            f"latency of {setting} does not fit into memory; lower --budget.batch or "
            "--budget.context, or give --budget.latency_table"
        ) from problem


def students(
    config: PretrainedConfig, wanted: Sequence[Timed], *, setting: LatencySetting
) -> list[PreTrainedModel]:
    """Students with random weights, which share one buffer as large as the largest of them."""
    weights = shared_weights(config, wanted, setting=setting)
    return [student(config, one, weights=weights) for one in wanted]


def shared_weights(
    config: PretrainedConfig, wanted: Sequence[Timed], *, setting: LatencySetting
) -> Tensor:
    """Random values, enough for the largest of the students."""
    size = max(
        parameter_count(config, one.architecture, kept=one.kept)
        + ALIGNED * _most_tensors(config, one.kept)
        for one in wanted
    )
    weights = torch.empty(size, dtype=getattr(torch, setting.dtype), device=setting.device)
    return weights.uniform_(-0.05, 0.05)


def student(config: PretrainedConfig, wanted: Timed, *, weights: Tensor) -> PreTrainedModel:
    """A student whose parameters are stretches of `weights`."""
    small = student_config(config, wanted.architecture, list(wanted.kept))
    with no_init_weights(), weights.device:
        model = AutoModelForCausalLM.from_config(small, dtype=weights.dtype).eval()
    model.tie_weights()  # which counts as initialising
    start = 0
    for parameter in model.parameters():
        stretch = weights[start : start + parameter.numel()]
        parameter.data = stretch.view(parameter.shape)
        start += -(-parameter.numel() // ALIGNED) * ALIGNED
    made: PreTrainedModel = model
    return made


def prompts(config: PretrainedConfig, setting: LatencySetting) -> Tensor:
    """Random tokens [batch, context] on the device."""
    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch, setting.context)
    return torch.randint(config.vocab_size, shape, generator=generator).to(setting.device)


def turn(
    model: PreTrainedModel, tokens: Tensor, times: Collection[str] = TIMES
) -> dict[str, float]:
    """Seconds of each of the `times`; the median over the calls of this turn.

    Where no prefill is timed, one sequence is read, and its cache repeated for the others.
    """
    last = tokens[:, -1:]
    cache: Any = None
    position = min(tokens.shape[1], _positions(model.config) - 1)
    positions = torch.full_like(last, position)

    def prefill(prompts: Tensor) -> None:
        nonlocal cache
        cache = model(input_ids=prompts, use_cache=True, logits_to_keep=1).past_key_values

    def decode() -> None:
        model(input_ids=last, position_ids=positions, past_key_values=cache, use_cache=True)

    taken = {}
    if PREFILL in times:
        taken[PREFILL] = _seconds(lambda: prefill(tokens), tokens)
    else:
        prefill(tokens[:1])
        cache.batch_repeat_interleave(len(tokens))
    if DECODE in times:
        taken[DECODE] = _seconds(decode, tokens, least=OF_PREFILL * taken.get(PREFILL, 0.0))
    return taken


def _seconds(call: Callable[[], None], tokens: Tensor, *, least: float = 0.0) -> float:
    """Median of some calls, which take `PIECE` and at `least` so many seconds, but are not more
    than the most; the first warms the caches of the processor where there are more.

    On one CPU thread the time is that of the processor: what it spends on others is left out.
    """
    alone = tokens.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    taken: list[float] = []
    while not taken or (sum(taken) < max(PIECE, least) and len(taken) < MOST_CALLS):
        _synchronise(tokens.device)
        began = clock()
        call()
        _synchronise(tokens.device)
        taken.append(clock() - began)
    return median(taken[1:] or taken)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _most_tensors(config: PretrainedConfig, kept: Sequence[int]) -> int:
    """Tensors of a student that keeps these layers and leaves nothing out."""
    family = family_of(config)
    outer = len(family.outer_axes(config))
    return outer + sum(len(list(family.tensors_of_layer(config, layer))) for layer in kept)


def _positions(config: PretrainedConfig) -> int:
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

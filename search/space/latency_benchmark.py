"""Latency benchmark: prefill of a context, and one decoding step after it, on the device."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from common.errors import SearchError, require
from common.progress import Throttle
from pruning import Architecture, family_of, parameter_count, student_config
from search.space.latency import TIMES, LatencySetting, LatencyTable

LOGGER = logging.getLogger(__name__)
SECONDS = 120.0
"""Rounds go on for about so long, within the next two."""
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15
PIECE = 0.05
"""A shape's turn in a round takes at least so many seconds of each kind, or the most calls."""
MOST_CALLS = 10
LINE_SECONDS = 10.0
NO_MEMORY = ("allocate memory", "Storage size")
"""What PyTorch says on a CPU that has not the memory; on a GPU it has an error of its own."""
ALIGNED = 64
"""Parameters start at multiples of so many values, as kernels like it."""


def setting_here(
    device: str, threads: int, *, batch: int, context: int, dtype: str
) -> LatencySetting:
    """The setting with the name of this machine's device. Raises SearchError for a type that
    PyTorch does not run models in."""
    require(
        dtype in ("float32", "bfloat16", "float16"),
        f"latency cannot be measured in {dtype}; measure it in the engine that serves the student, "
        "and give --budget.latency_table",
    )
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return LatencySetting(device, threads, batch, context, dtype, name)


def measure(
    config: PretrainedConfig,
    shapes: Sequence[Architecture],
    *,
    setting: LatencySetting,
    seconds: float = SECONDS,
    quiet: bool = False,
) -> LatencyTable:
    """Time students of the teacher with this configuration, with random weights.

    The shapes take turns, so that a drift of the machine favours none; a time is the median over
    the turns. Eager mode, with the attention and the cache that transformers uses by default. The
    students share one buffer of weights, as large as the largest. Lines of progress are logged
    unless `quiet`. Raises SearchError where the device has too little memory.
    """
    started = time.monotonic()
    try:
        with _threads(setting.threads), torch.inference_mode():
            rows = _rounds(config, shapes, setting=setting, until=started + seconds, quiet=quiet)
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
    times = {name: tuple(1000 * median(turns) for turns in rows[name]) for name in TIMES}
    return LatencyTable(tuple(shapes), times, setting)


def check(
    config: PretrainedConfig, architecture: Architecture, *, setting: LatencySetting
) -> dict[str, float]:
    """One architecture measured again, by name of the time: what a prediction is held against."""
    table = measure(config, [architecture], setting=setting, seconds=10, quiet=True)
    return {name: times[0] for name, times in table.times.items()}


def _rounds(
    config: PretrainedConfig,
    shapes: Sequence[Architecture],
    *,
    setting: LatencySetting,
    until: float,
    quiet: bool,
) -> dict[str, list[list[float]]]:
    """Seconds of every turn: time -> shape -> turns."""
    weights = _weights(config, shapes, setting=setting)
    models = [_student(config, shape, weights=weights) for shape in shapes]
    tokens = torch.randint(
        config.vocab_size,
        (setting.batch, setting.context),
        generator=torch.Generator().manual_seed(0),
    ).to(weights.device)
    turns: dict[str, list[list[float]]] = {name: [[] for _ in shapes] for name in TIMES}
    for model in models:
        _turn(model, tokens)  # kernels are chosen, memory is taken
    line_due, done, rounds = Throttle(LINE_SECONDS), 0, FEWEST_ROUNDS
    while done < rounds:
        began = time.monotonic()
        for place, model in enumerate(models):
            for name, seconds in _turn(model, tokens).items():
                turns[name][place].append(seconds)
        done += 1
        now = time.monotonic()
        took = now - began
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, done + int((until - now) / took)))
        if done < rounds and not quiet and line_due():
            LOGGER.info(
                f"latency: round {done} of {rounds} over {len(shapes)} shapes, about "
                f"{took * (rounds - done):.0f} s left"
            )
    return turns


def _turn(model: PreTrainedModel, tokens: Tensor) -> dict[str, float]:
    """Seconds of a prefill and of a decoding step; the median over the calls of this turn."""
    last = tokens[:, -1:]
    cache: Any = None
    position = min(tokens.shape[1], _positions(model.config) - 1)
    positions = torch.full_like(last, position)

    def prefill() -> None:
        nonlocal cache
        cache = model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values

    def decode() -> None:
        model(input_ids=last, position_ids=positions, past_key_values=cache, use_cache=True)

    return {"prefill_ms": _seconds(prefill, tokens), "decode_ms": _seconds(decode, tokens)}


def _seconds(call: Callable[[], None], tokens: Tensor) -> float:
    """Median of some calls; the first warms the caches of the processor where there are more.

    On one CPU thread the time is that of the processor: what it spends on others is left out.
    """
    alone = tokens.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    taken: list[float] = []
    while not taken or (sum(taken) < PIECE and len(taken) < MOST_CALLS):
        _synchronise(tokens.device)
        began = clock()
        call()
        _synchronise(tokens.device)
        taken.append(clock() - began)
    return median(taken[1:] or taken)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _weights(
    config: PretrainedConfig, shapes: Sequence[Architecture], *, setting: LatencySetting
) -> Tensor:
    """Random values, enough for the largest of the students."""
    tensors = sum(1 for _ in family_of(config).tensors(config))
    size = max(parameter_count(config, a, kept=_kept(config, a)) for a in shapes)
    weights = torch.empty(
        size + ALIGNED * tensors, dtype=getattr(torch, setting.dtype), device=setting.device
    )
    return weights.uniform_(-0.05, 0.05)


def _student(config: PretrainedConfig, shape: Architecture, *, weights: Tensor) -> PreTrainedModel:
    """A student whose parameters are stretches of `weights`."""
    small = student_config(config, shape, _kept(config, shape))
    with no_init_weights(), weights.device:
        model = AutoModelForCausalLM.from_config(small, dtype=weights.dtype).eval()
    model.tie_weights()  # which counts as initialising
    start = 0
    for parameter in model.parameters():
        stretch = weights[start : start + parameter.numel()]
        parameter.data = stretch.view(parameter.shape)
        start += -(-parameter.numel() // ALIGNED) * ALIGNED
    student: PreTrainedModel = model
    return student


def _kept(config: PretrainedConfig, shape: Architecture) -> list[int]:
    """Layers spread over the teacher's, so that a pattern of windows is kept in proportion."""
    depth = config.num_hidden_layers
    return [place * depth // shape.layers for place in range(shape.layers)]


def _positions(config: PretrainedConfig) -> int:
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    """The processor's name; Linux has it in /proc/cpuinfo, other systems in the platform module."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

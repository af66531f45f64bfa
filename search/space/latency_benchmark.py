"""Latency benchmark: architectures of one size in all layers, timed in turns on the device, and
models with weights of their own."""

import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from common.errors import SearchError, require
from common.progress import Throttle, duration
from pruning import Architecture
from pruning.families import ALL_SHARES, kinds_of
from search.space.latency import DECODE, PREFILL, TIMES, LatencySetting, LatencyTable
from search.space.timing import Timed, prompts, students, timing, turn

LOGGER = logging.getLogger(__name__)
SECONDS = 120.0
"""Rounds go on for about so long, within the next two."""
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15
FEWEST_TURNS = 5
"""Of one model that is timed alone."""
LINE_SECONDS = 10.0


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
    times: Sequence[str] = TIMES,
    seconds: float = SECONDS,
) -> LatencyTable:
    """Time students of the teacher with this configuration, with random weights.

    The shapes take turns, so that a drift of the machine favours none; a time is the median over
    the turns. Eager mode, with the attention and the cache that transformers uses by default. The
    students share one buffer of weights, as large as the largest. Raises SearchError where the
    device has too little memory.
    """
    started = time.monotonic()
    with timing(setting):
        rows = _rounds(config, shapes, setting=setting, times=times, until=started + seconds)
    found = {name: tuple(1000 * median(turns) for turns in rows[name]) for name in times}
    return LatencyTable(tuple(shapes), found, setting)


def check(
    config: PretrainedConfig, architecture: Architecture, *, setting: LatencySetting
) -> dict[str, float]:
    """One architecture measured again, by name of the time: what a prediction is held against."""
    table = measure(config, [architecture], setting=setting, seconds=10)
    return {name: times[0] for name, times in table.times.items()}


@dataclass(frozen=True)
class ModelTimes:
    """Seconds of each turn, and what a context leaves behind."""

    prefill: list[float]
    """To read a batch of whole contexts."""
    decode: list[float]
    """Of one decoding step after them."""
    cache: Any
    """The cache of the batch, as transformers has it."""


def time_model(
    model: PreTrainedModel, setting: LatencySetting, *, seconds: float, remedy: str
) -> ModelTimes:
    """Time `model` for about so many seconds, with the calls that shapes are timed with.

    Raises SearchError, with the `remedy`, where the device has too little memory.
    """
    times: dict[str, list[float]] = {PREFILL: [], DECODE: []}
    try:
        with timing(setting):
            tokens = prompts(model.config.get_text_config(), setting)
            read: Any = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
            turn(model, tokens)  # kernels are chosen, memory is taken
            until = time.monotonic() + seconds
            while time.monotonic() < until or len(times[DECODE]) < FEWEST_TURNS:
                for name, taken in turn(model, tokens).items():
                    times[name].append(taken)
    except SearchError as problem:
        raise SearchError(f"{setting} does not fit the memory; {remedy}") from problem
    return ModelTimes(times[PREFILL], times[DECODE], read.past_key_values)


def _rounds(
    config: PretrainedConfig,
    shapes: Sequence[Architecture],
    *,
    setting: LatencySetting,
    times: Sequence[str],
    until: float,
) -> dict[str, list[list[float]]]:
    """Seconds of every turn: time -> shape -> turns."""
    wanted = [Timed(shape, spread_layers(config, shape.layers)) for shape in shapes]
    models = students(config, wanted, setting=setting)
    tokens = prompts(config, setting)
    turns: dict[str, list[list[float]]] = {name: [[] for _ in shapes] for name in times}
    for model in models:
        turn(model, tokens, times)  # kernels are chosen, memory is taken
    line_due, done, rounds = Throttle(LINE_SECONDS), 0, FEWEST_ROUNDS
    while done < rounds:
        began = time.monotonic()
        for place, model in enumerate(models):
            for name, seconds in turn(model, tokens, times).items():
                turns[name][place].append(seconds)
        done += 1
        now = time.monotonic()
        took = now - began
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, done + int((until - now) / took)))
        if done < rounds and line_due():
            LOGGER.info(
                f"latency: round {done} of {rounds} over {len(shapes)} shapes, about "
                f"{duration(took * (rounds - done))} left of them"
            )
    return turns


def spread_layers(config: PretrainedConfig, count: int) -> tuple[int, ...]:
    """Layers spread over the teacher's, so that a pattern of windows is kept in proportion; where
    they differ in kind, of each its share."""
    kinds = kinds_of(config)
    shares = {kind: int(numbers[count]) for kind, numbers in ALL_SHARES.counts(kinds).items()}
    spread: list[int] = []
    for kind, share in shares.items():
        layers = [layer for layer, other in enumerate(kinds) if other == kind]
        spread += [layers[place * len(layers) // share] for place in range(share)]
    return tuple(sorted(spread))


def _processor() -> str:
    """The processor's name; Linux has it in /proc/cpuinfo, other systems in the platform module."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

"""Speed and memory of a model on this device."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch

from common.errors import SearchError
from experiments.evaluation.config import SpeedConfig
from search.space import LatencySetting, setting_here, time_model

DEFAULT_CONTEXT = 512


@dataclass(frozen=True)
class Speed:
    """Times of one model, medians over its turns, and what it takes of memory."""

    setting: str
    """Device and workload, in words."""
    prefill: float
    """Tokens read per second."""
    prefill_quartiles: tuple[float, float]
    """Half of the turns lie between them."""
    decode: float
    """Tokens decoded per second, all sequences together."""
    decode_quartiles: tuple[float, float]
    """Half of the turns lie between them."""
    weights_bytes: int
    """Of all parameters."""
    cache_bytes: int
    """Of keys, values and states of the whole batch after its context."""
    peak_bytes: int | None
    """Most that the device's allocator held while it was timed; None on a CPU."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def check_context(config: SpeedConfig, positions: int) -> None:
    """Raises SearchError for a context that a model of so many positions cannot read."""
    if config.context is not None and config.context > positions:
        raise SearchError(
            f"--speed.context is {config.context}, but one of the models has only {positions} "
            "positions"
        )


def setting_of(
    config: SpeedConfig, device: torch.device, dtype: torch.dtype, *, positions: int
) -> LatencySetting:
    """What the models are timed with, where one takes so many positions."""
    context = config.context or min(DEFAULT_CONTEXT, positions)
    threads = torch.get_num_threads()
    name = str(dtype).removeprefix("torch.")
    return setting_here(device.type, threads, batch=config.batch, context=context, dtype=name)


def timed(model: Any, setting: LatencySetting, seconds: float) -> Speed:
    """Time `model`. Raises SearchError where the device has too little memory."""
    on_gpu = setting.device == "cuda"
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    others = 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        others = torch.cuda.memory_allocated() - weights  # such as the reference
    times = time_model(
        model,
        setting,
        seconds=seconds,
        remedy="lower --speed.batch or --speed.context, or give --speed.seconds 0",
    )
    read = [setting.batch * setting.context / taken for taken in times.prefill]
    decoded = [setting.batch / taken for taken in times.decode]
    return Speed(
        setting=str(setting),
        prefill=median(read),
        prefill_quartiles=_quartiles(read),
        decode=median(decoded),
        decode_quartiles=_quartiles(decoded),
        weights_bytes=weights,
        cache_bytes=sum({t.data_ptr(): t.nbytes for t in tensors_in(times.cache)}.values()),
        peak_bytes=torch.cuda.max_memory_allocated() - others if on_gpu else None,
    )


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def tensors_in(value: Any, depth: int = 10) -> Iterator[torch.Tensor]:
    """The tensors of a cache, whatever its layers keep."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part, depth - 1)
    elif depth and isinstance(value, dict):
        yield from tensors_in(list(value.values()), depth - 1)
    elif depth and hasattr(value, "__dict__"):
        yield from tensors_in(vars(value), depth - 1)

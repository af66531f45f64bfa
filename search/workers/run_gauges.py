"""Gauges of the run that a slot is in, which Prometheus reads from Ray."""

import torch
from ray.util.metrics import Gauge

from common.values import in_ascii
from distill.recipes import RunProgress
from pruning import Architecture

TAGS = ("study", "run", "architecture")
GAUGES = {
    "kl": "forward KL to the teacher on the selection split, nats per token",
    "tokens": "tokens trained on",
    "tokens_per_second": "training tokens per second since the evaluation before; 0 after its end",
    "peak_memory_bytes": "most memory that the run took: of its GPU, else of its process",
    "gpu_memory_bytes": "memory of its GPU that the process holds",
}
"""Name of a gauge, before which Ray puts ray_espalier_, and what it measures."""


class RunGauges:
    """Those of one process, set at every evaluation of whatever run it is in."""

    def __init__(self) -> None:
        self._gauges = {
            name: Gauge(f"espalier_{name}", description=text, tag_keys=TAGS)
            for name, text in GAUGES.items()
        }
        self._tags: dict[str, str] = {}
        self._tokens, self._seconds = 0, 0.0

    def begin(self, study: str, run: str, architecture: Architecture) -> None:
        """Another run is taken up."""
        tags = {"study": study, "run": run, "architecture": str(architecture)}
        self._tags = {name: in_ascii(value) for name, value in tags.items()}
        self._tokens, self._seconds = -1, 0.0

    def report(self, progress: RunProgress) -> None:
        """The run came to an evaluation."""
        if self._tokens < 0:  # of this process, of a run that may have begun in another
            self._tokens = progress.resumed_tokens
        tokens = progress.tokens - self._tokens
        seconds = progress.busy_seconds - self._seconds
        self._tokens, self._seconds = progress.tokens, progress.busy_seconds
        self._set("kl", progress.last.kl)
        self._set("tokens", progress.tokens)
        self._set("tokens_per_second", tokens / seconds if seconds > 0 else 0.0)
        self._set("peak_memory_bytes", progress.peak_bytes)
        if torch.cuda.is_initialized():
            self._set("gpu_memory_bytes", torch.cuda.memory_reserved())

    def end(self) -> None:
        """The run is left, for good or for now: it has no speed any more."""
        if self._tags:
            self._set("tokens_per_second", 0.0)

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(value, self._tags)

"""Memory of one run of a search, estimated before any is started.

The most of three moments: a pass forward and backward, the update of the weights, and an
evaluation. The constants of the estimate are here, but for what a layer keeps. They follow from
what a step holds, counted in tensors, and were held against the worker processes of real runs by
`experiments/benchmarks/search/trial_memory.py`, whose table is in docs/search.md.
"""

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from common.progress import counted
from distill.loss import CROSS_ENTROPY, piece_elements
from distill.targets import EVALUATION_DRAWS, FULL_VOCABULARY, blocks_at_once
from distill.train import ADAMW_8BIT, LIVE, ResolvedTraining
from pruning import Architecture
from pruning.families import family_of
from search.needs.activations import kept_by_layer
from search.needs.memory import MemoryParts

GB = 1e9
FP32, BF16 = 4, 2
WORKER = 0.6 * GB
"""A worker's process without a student: Python, torch, transformers and Ray, libraries included."""
WORKER_BESIDE_GPU = 2.5 * GB
"""The same with CUDA's libraries. Not measured here."""
CONTEXT = 0.6 * GB
"""What a process takes of a GPU's memory before anything is put there. Not measured here."""
SLACK = 1.1
"""What allocators hold for each byte of a tensor."""
BACKWARD_LAYERS = 2
"""Layers whose worth of such tensors the backward pass has besides."""
AUTOCAST_SHARE = 0.75
"""What of that is left in bf16: products are kept in 2 bytes, norms and residuals in 4."""
AUTOCAST_SHARE_OF_GPU, COMPILED_SHARE = 0.55, 0.4
"""The same on a GPU, whose attention keeps less, and of compiled layers, which compute again what
is cheap: measured on a Llama of 1.2B parameters on an H100 (docs/gpu.md)."""
EVALUATED_SAMPLED, EVALUATED_WHOLE = 5, 7
"""Copies of fp32 logits that an evaluation holds at once: where the targets are draws, and where
they are whole distributions, which are as large."""
DRAWN_BYTES = 30
"""Of an entry of drawn targets while a batch of them is read: token, log-probability, share."""
WHOLE_COPIES = 3
"""Of whole distributions in fp32 while a batch of them is read."""


@dataclass(frozen=True)
class TrialMemory:
    """Estimate of the memory that runs of a study take, each by its architecture."""

    config: PretrainedConfig
    """Configuration of the teacher."""
    training: ResolvedTraining
    """How students learn."""
    block: int
    """Tokens of a sequence."""
    teacher_bytes: float
    """Bytes of the teacher's weights, as they are held beside a student."""
    devices: int = 1
    """Processes that share what is there between two steps; `training` has the batch of one."""

    def process(
        self, architecture: Architecture, parameters: Any, *, beside_gpu: bool = False
    ) -> Any:
        """Bytes of the machine's memory that a run's process takes, elementwise.

        The fields of `architecture` may be arrays, as the `parameters` are then.
        """
        if not beside_gpu:
            return WORKER + SLACK * self._tensors(architecture, parameters, on_gpu=False)
        copied = parameters * self._state_bytes / self.devices  # for a checkpoint
        return WORKER_BESIDE_GPU + copied

    def on_gpu(self, architecture: Architecture, parameters: Any) -> Any:
        """Bytes of a GPU's memory, likewise."""
        return CONTEXT + SLACK * self._tensors(architecture, parameters, on_gpu=True)

    def parts(self, architecture: Architecture, parameters: float, *, on_gpu: bool) -> MemoryParts:
        """The same of one student by part, at the moment at which it takes most; on a GPU those of
        the GPU."""
        held = [
            moment.held(slack=SLACK, process=process_bytes(on_gpu))
            for moment in self._moments(architecture, parameters, on_gpu=on_gpu)
        ]
        return max(held, key=lambda moment: float(moment.total))

    def peak(self, architecture: Architecture, parameters: float, *, on_gpu: bool) -> float:
        """What a run of one student measures of itself: what torch allocates on a GPU, or what its
        process has resident."""
        if on_gpu:
            return float(self._tensors(architecture, parameters, on_gpu=True))
        return float(self.process(architecture, parameters))

    def _tensors(self, architecture: Architecture, parameters: Any, *, on_gpu: bool) -> Any:
        """Of all tensors at the worst moment."""
        moments = self._moments(architecture, parameters, on_gpu=on_gpu)
        return reduce(np.maximum, [moment.total for moment in moments])

    def _moments(
        self, architecture: Architecture, parameters: Any, *, on_gpu: bool
    ) -> list[MemoryParts]:
        """A pass forward and backward, the update of the weights, and an evaluation."""
        between = MemoryParts(
            weights=parameters * FP32,
            optimizer=parameters * (self._state_bytes - FP32),
            teacher=self._teacher,
        )
        gradients = parameters * FP32
        table = self.vocabulary * architecture.hidden * FP32  # the projection's gradient, once more
        adding_up = self.sequences < self.training.batch  # to gradients of the passes before
        narrow = parameters * BF16 if self.training.precision == "bf16" else 0
        tokens = self.sequences * self.block
        step = replace(
            between,
            weights=between.weights + narrow,
            gradients=gradients + table if adding_up else 2 * table,
            activations=self._activations(architecture, tokens, on_gpu=on_gpu),
            logits=self._logits(tokens, on_gpu=on_gpu) + self._targets(tokens),
        )
        update = replace(between, gradients=gradients + table)
        moments = [step, update, replace(between, logits=self._evaluation)]
        return [moment.shared(self.devices) for moment in moments]

    def __str__(self) -> str:
        passed = f"{counted(self.sequences, 'sequence')} of {self.block}"
        live = ", live teacher" if self._live else ""
        recurrent = bool(family_of(self.config).ssm_tensors)
        scans = ", the scans of recurrent layers not counted" if recurrent else ""
        return f"{passed}, vocabulary {self.vocabulary:,}{live}{scans}"

    @property
    def sequences(self) -> int:
        """Of a forward pass."""
        return min(self.training.micro_batch or self.training.batch, self.training.batch)

    @property
    def vocabulary(self) -> int:
        """Tokens that the teacher knows."""
        return int(self.config.vocab_size)

    @property
    def _state_bytes(self) -> int:
        """Of a parameter between two steps: itself, its moments, its average."""
        moments = 2 if self.training.optimizer == ADAMW_8BIT else 2 * FP32
        return FP32 + moments + (FP32 if self.training.average else 0)

    @property
    def _live(self) -> bool:
        return self.training.targets == LIVE and self.training.loss != CROSS_ENTROPY

    @property
    def _teacher(self) -> float:
        return self.teacher_bytes if self._live else 0.0

    def _logits(self, tokens: int, *, on_gpu: bool) -> int:
        """Of the chunk of a forward pass that is there at once, and a live teacher's."""
        kind = BF16 if self.training.precision == "bf16" else FP32
        most = piece_elements("cuda" if on_gpu else "cpu")
        values = max(self.vocabulary, min(tokens * self.vocabulary, most))
        return values * (kind + (kind + FP32 if self._live else 0))

    def _share(self, on_gpu: bool) -> float:
        """What the precision leaves of the tensors that are kept."""
        if self.training.precision != "bf16":
            return 1.0
        if not on_gpu:
            return AUTOCAST_SHARE
        return COMPILED_SHARE if self.training.compile else AUTOCAST_SHARE_OF_GPU

    def _activations(self, architecture: Architecture, tokens: int, *, on_gpu: bool) -> Any:
        """What autograd keeps of a forward pass, and the backward pass needs besides."""
        share = self._share(on_gpu)
        of_layer = share * FP32 * tokens * kept_by_layer(self.config, architecture, self.block)
        if self.training.gradient_checkpointing:
            return (
                tokens * architecture.hidden * FP32 * architecture.layers
                + (1 + BACKWARD_LAYERS) * of_layer
            )
        return (architecture.layers + BACKWARD_LAYERS) * of_layer

    def _targets(self, tokens: int) -> int:
        """Of stored targets of a forward pass."""
        training = self.training
        if self._live or training.loss == CROSS_ENTROPY:
            return 0
        if training.targets == "full" or (
            training.targets == "auto" and self.vocabulary <= FULL_VOCABULARY
        ):
            return tokens * self.vocabulary * FP32 * WHOLE_COPIES
        return tokens * max(training.topk, training.draws) * DRAWN_BYTES

    @property
    def _evaluation(self) -> int:
        """Of an evaluation, besides what is there between two steps."""
        tokens = blocks_at_once(self.block, self.vocabulary) * self.block
        if self.vocabulary <= FULL_VOCABULARY:
            return tokens * self.vocabulary * FP32 * EVALUATED_WHOLE
        drawn = min(EVALUATION_DRAWS, self.vocabulary) * DRAWN_BYTES
        return tokens * (self.vocabulary * FP32 * EVALUATED_SAMPLED + drawn)


def process_bytes(on_gpu: bool) -> float:
    """Bytes of a process without any tensor: of the GPU, or of the machine."""
    return CONTEXT if on_gpu else WORKER

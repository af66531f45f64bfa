"""Memory of one run of a search, estimated before any is started.

The most of two moments: a training step and an evaluation. Every constant of the estimate is here.
They follow from what a step holds, counted in tensors, and were held against the worker processes
of real runs by `experiments/benchmarks/search/trial_memory.py`, whose table is in docs/search.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from distill.loss import CROSS_ENTROPY, piece_elements
from distill.targets import EVALUATION_DRAWS, FULL_VOCABULARY, blocks_at_once
from distill.train import ADAMW_8BIT, LIVE, ResolvedTraining
from pruning import Architecture
from pruning.families import experts_per_token, family_of, layer_heads

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
KEPT_NORM, KEPT_HEADS, KEPT_FFN, KEPT_SCORES = 3, 5, 4, 3
"""Tensors that a layer keeps for its backward pass, by their width: of each norm (what comes in, is
normalised, and weighted), of all query heads (queries, keys and values spread over them, answer),
of the FFN (gate, activation, other half, product), and of attention scores where they are whole."""
WHOLE_SCORES = ("attn_logit_softcapping", "attn_pdrop", "attention_dropout")
BACKWARD_LAYERS = 2
"""Layers whose worth of such tensors the backward pass has besides."""
AUTOCAST_SHARE = 0.75
"""What of that is left in bf16: products are kept in 2 bytes, norms and residuals in 4."""
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

    def process(
        self, architecture: Architecture, parameters: Any, *, beside_gpu: bool = False
    ) -> Any:
        """Bytes of the machine's memory that a run's process takes, elementwise.

        The fields of `architecture` may be arrays, as the `parameters` are then.
        """
        if not beside_gpu:
            return WORKER + SLACK * self._tensors(architecture, parameters)
        return WORKER_BESIDE_GPU + parameters * self._state_bytes  # copied for a checkpoint

    def on_gpu(self, architecture: Architecture, parameters: Any) -> Any:
        """Bytes of a GPU's memory, likewise."""
        return CONTEXT + SLACK * self._tensors(architecture, parameters)

    def _tensors(self, architecture: Architecture, parameters: Any) -> Any:
        """Of all tensors at the worse moment."""
        states = parameters * self._state_bytes + self._teacher
        return states + np.maximum(self._step(architecture, parameters), self._evaluation)

    def __str__(self) -> str:
        passed = f"{self.sequences} sequences of {self.block}"
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

    def _step(self, architecture: Architecture, parameters: Any) -> Any:
        """Of a training step, besides what is there between two."""
        table = self.vocabulary * architecture.hidden * FP32  # the projection's gradient, once more
        gradients = parameters * FP32
        narrow = parameters * BF16 if self.training.precision == "bf16" else 0
        tokens = self.sequences * self.block
        kind = BF16 if self.training.precision == "bf16" else FP32
        logits = max(self.vocabulary, min(tokens * self.vocabulary, piece_elements("cpu")))
        pieces = logits * (kind + (kind + FP32 if self._live else 0))
        forward = (
            self._activations(architecture, tokens)
            + pieces
            + self._targets(tokens)
            + narrow
            + table
        )
        if self.sequences < self.training.batch:  # gradients of the passes before
            return gradients + forward
        return np.maximum(gradients, forward) + table

    def _activations(self, architecture: Architecture, tokens: int) -> Any:
        """What autograd keeps of a forward pass, and the backward pass needs besides."""
        share = AUTOCAST_SHARE if self.training.precision == "bf16" else 1.0
        of_layer = share * FP32 * tokens * self._kept_by_layer(architecture)
        if self.training.gradient_checkpointing:
            return (
                tokens * architecture.hidden * FP32 * architecture.layers
                + (1 + BACKWARD_LAYERS) * of_layer
            )
        return (architecture.layers + BACKWARD_LAYERS) * of_layer

    def _kept_by_layer(self, architecture: Architecture) -> Any:
        """Values per token."""
        given = architecture.experts_per_token
        per_token = np.where(np.equal(given, 0), experts_per_token(self.config), given)
        routed = np.minimum(architecture.experts, per_token)
        # Capped scores, those that are dropped at random and those beside a sink no fast kernel
        # makes.
        whole = any(getattr(self.config, name, None) for name in WHOLE_SCORES)
        whole |= any(".sinks" in name for name in family_of(self.config).layer_tensors)
        return (
            KEPT_NORM * self._norms(architecture)
            + KEPT_HEADS * architecture.heads * self._head_dim
            + KEPT_FFN * architecture.ffn
            + routed * (KEPT_FFN * architecture.expert_ffn + 2 * architecture.hidden)
            + (KEPT_SCORES * architecture.heads * self.block if whole else 0)
        )

    @property
    def _head_dim(self) -> float:
        """Channels per head, the mean over layers."""
        depth = range(self.config.num_hidden_layers)
        return float(np.mean([layer_heads(self.config, layer).head_dim for layer in depth]))

    def _norms(self, architecture: Architecture) -> Any:
        """Width of all norms of a layer together; one of a head counts for every query head."""
        total: Any = 0
        for name, axes in family_of(self.config).layer_axes(self.config, 0).items():
            if len(axes) == 1 and name.endswith("weight"):
                of_heads = axes[0] != "hidden"
                total = total + (
                    architecture.heads * self._head_dim if of_heads else architecture.hidden
                )
        return total

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

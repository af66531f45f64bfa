"""A teacher of random weights, to be timed: no time depends on the weights."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from distill.loss import with_fast_products
from distill.targets import TargetFormat, blocks_at_once, write_targets
from pruning import architecture_of
from pruning.families import forward_flops

READ_BLOCKS = 8
"""Sequences that it reads while it is timed."""


@dataclass(frozen=True)
class RandomTeacher:
    """A teacher of random weights. It is undecided, so that hardly a draw from its answers repeats
    another, and as many entries are stored as are drawn."""

    config: PretrainedConfig
    """Its shape."""
    dtype: torch.dtype
    """Type that it computes in."""
    device: torch.device
    """Where it is."""

    def model(self) -> Any:
        """The model itself."""
        return with_fast_products(random_model(self.config, self.dtype, self.device).eval())

    def small(self) -> Any:
        """One that answers with as many tokens, and takes no time."""
        small = LlamaConfig(
            vocab_size=self.config.vocab_size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            bos_token_id=None,
            eos_token_id=None,
        )
        return random_model(small, torch.float32, self.device).eval()

    def blocks(self, count: int, block: int) -> NDArray[np.uint32]:
        """Random text [count, block]."""
        drawn = np.random.default_rng(0).integers(0, self.config.vocab_size, (count, block))
        return drawn.astype(np.uint32)

    def seconds_per_flop(self, block: int, target_format: TargetFormat | None = None) -> float:
        """Seconds of an operation while it reads sequences of `block` tokens, and writes what it
        answers where a format for that is given."""
        model = self.model()
        with tempfile.TemporaryDirectory() as folder:
            for name, count in (("first", 1), ("timed", READ_BLOCKS)):
                blocks, begun = self.blocks(count, block), time.monotonic()
                if target_format is None:
                    self._read(model, blocks)
                else:
                    directory = Path(folder) / name
                    write_targets(model, blocks, target_format=target_format, directory=directory)
            seconds = time.monotonic() - begun
        flops = float(forward_flops(self.config, architecture_of(self.config), block))
        return seconds / (READ_BLOCKS * block * flops)

    @torch.no_grad()
    def _read(self, model: Any, blocks: NDArray[np.uint32]) -> None:
        size = blocks_at_once(blocks.shape[1], self.config.vocab_size)
        for ids in torch.from_numpy(blocks.astype(np.int64)).to(self.device).split(size):
            model(input_ids=ids, use_cache=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def random_model(config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> Any:
    """A model of this shape."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)

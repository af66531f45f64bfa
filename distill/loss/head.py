"""Output head of a model: what turns its last hidden states into logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PROBE = 8
"""Tokens that a head is tried on."""
_TOLERANCE, _NARROW_TOLERANCE = 1e-3, 3e-2
"""By how much its logits may be off, in fp32 and in types of 16 bits."""


@dataclass(frozen=True)
class LogitScale:
    """What a model does to its projection's output; by default nothing."""

    divisor: float = 1.0
    """Divides the output."""
    cap: float | None = None
    """Logits z become cap * tanh(z / cap)."""

    def finish(self, raw: Tensor) -> Tensor:
        """fp32 logits [..., vocab] of the projection's output."""
        raw = raw.float()
        if self.divisor != 1.0:
            raw = raw / self.divisor
        return raw if self.cap is None else self.cap * torch.tanh(raw / self.cap)

    def pull(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """The gradient by the projection's output, from that by `logits`; in place."""
        if self.cap is not None:
            gradient.mul_(1 - (logits / self.cap).square())
        return gradient.div_(self.divisor) if self.divisor != 1.0 else gradient


@dataclass(frozen=True)
class Head:
    """Output head of a model: projects its last hidden states, then scales or caps the logits."""

    projection: nn.Module
    """The output embedding: `weight` [vocab, hidden] and perhaps `bias` [vocab]."""
    scale: LogitScale = LogitScale()
    """What becomes of its output."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any) -> "Head | None":
        """The head of a stock causal LM, or None where it does something else.

        Tried on a few tokens against the model's own logits, so that a type that is not foreseen
        here is noticed.
        """
        config = model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        projection = model.get_output_embeddings()
        weight = getattr(projection, "weight", None)
        if weight is None or weight.device.type == "meta" or model.base_model is model:
            return None
        ids = torch.arange(_PROBE, device=weight.device).unsqueeze(0) % weight.shape[0]
        training = model.training
        model.eval()
        logits = model(input_ids=ids, use_cache=False).logits
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        model.train(training)
        tolerance = _TOLERANCE if weight.dtype == torch.float32 else _NARROW_TOLERANCE
        for divisor in _divisors(config):
            head = cls(projection, LogitScale(divisor, None if cap is None else float(cap)))
            ours = head.logits(hidden, weight, getattr(projection, "bias", None)).to(logits.dtype)
            if ours.shape == logits.shape and torch.allclose(ours, logits, tolerance, tolerance):
                return head
        return None

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """fp32 logits [..., vocab] of `hidden` [..., hidden]."""
        return self.scale.finish(nn.functional.linear(hidden, weight, bias))


def _divisors(config: Any) -> list[float]:
    """What a type may divide its logits by: Granite by a value of its configuration, HyperCLOVA X,
    Cohere and Falcon-H1 by the inverse of one."""
    scaling = float(getattr(config, "logits_scaling", 1.0))
    factors = [getattr(config, name, None) for name in ("logit_scale", "lm_head_multiplier")]
    return [scaling, 1 / scaling, *(1 / float(factor) for factor in factors if factor)]

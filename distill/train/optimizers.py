"""AdamW in 32 or 8 bits, and gradient clipping."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import DistillError
from distill.train.settings import ADAMW_8BIT, TrainingSettings

BETAS = (0.9, 0.95)


def make_optimizer(
    model: nn.Module, settings: TrainingSettings, rate: float
) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters of `model`; norms and biases do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: Any = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer == ADAMW_8BIT:
        check_optimizer(settings)
        from bitsandbytes.optim import AdamW8bit

        eight: torch.optim.Optimizer = AdamW8bit(groups, betas=BETAS, lr=rate)
        return eight
    device = trained[0].device.type
    return torch.optim.AdamW(groups, betas=BETAS, lr=rate, fused=device in ("cpu", "cuda"))


def check_optimizer(settings: TrainingSettings) -> None:
    """Raises DistillError where the optimiser's package is not installed."""
    if settings.optimizer == ADAMW_8BIT and find_spec("bitsandbytes") is None:
        raise DistillError(
            "the optimizer adamw-8bit needs bitsandbytes; pip install -e '.[8bit]' in Espalier's "
            "checkout, or use adamw"
        )


def clip_gradients(model: nn.Module, norm: float) -> Tensor:
    """Scale gradients down to `norm` over all of them and all processes; returns it before, as a
    scalar on their device."""
    before: Any = torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
    if hasattr(before, "full_tensor"):
        before = before.full_tensor()
    known: Tensor = before
    return known

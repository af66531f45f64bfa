"""Losses: divergences, the fused head, hidden states, the live teacher."""

from distill.loss.divergences import CROSS_ENTROPY, FORWARD_KL, token_losses
from distill.loss.fused_head import piece_elements
from distill.loss.hidden_states import StateSettings
from distill.loss.live_teacher import LiveTeacher
from distill.loss.module import DistillationModule, SupervisedBatch
from distill.loss.products import slow_products, with_fast_products

__all__ = [
    "CROSS_ENTROPY",
    "FORWARD_KL",
    "DistillationModule",
    "LiveTeacher",
    "StateSettings",
    "SupervisedBatch",
    "piece_elements",
    "slow_products",
    "token_losses",
    "with_fast_products",
]

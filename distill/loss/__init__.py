"""Losses: divergences, the fused head, hidden states, the live teacher."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.loss.divergences import (
        DistillationLoss,
        token_losses,
    )
    from distill.loss.fused_head import piece_elements, projected_loss
    from distill.loss.head import Head
    from distill.loss.live_teacher import LiveTeacher
    from distill.loss.module import DistillationModule, SupervisedBatch
    from distill.loss.names import CROSS_ENTROPY, FORWARD_KL
    from distill.loss.products import slow_products, with_fast_products
    from distill.loss.settings import StateSettings
    from distill.loss.supervision import Supervision, Target, TeacherHead

__all__ = [
    "CROSS_ENTROPY",
    "FORWARD_KL",
    "DistillationLoss",
    "DistillationModule",
    "Head",
    "LiveTeacher",
    "StateSettings",
    "SupervisedBatch",
    "Supervision",
    "Target",
    "TeacherHead",
    "piece_elements",
    "projected_loss",
    "slow_products",
    "token_losses",
    "with_fast_products",
]

__getattr__ = lazy_exports(__name__)

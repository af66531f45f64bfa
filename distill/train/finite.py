"""Watch over a run's losses and gradients, which must be finite before they reach the weights."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StepFigures:
    """What a step found, on its way from the device."""

    step: int
    """Number of the optimiser step, from 0."""
    values: Tensor
    """[2], loss and norm of the gradient; on the host once `ready` has passed."""
    ready: Any
    """CUDA event after the copy; None where there is nothing to wait for."""

    def read(self) -> tuple[float, float]:
        """(loss, norm), waiting for this step, though for none that was begun after it."""
        if self.ready is not None:
            self.ready.synchronize()
        loss, norm = self.values.tolist()
        return loss, norm


class FiniteWatch:
    """Watch over the steps of one run.

    Deferred, the host does not wait for a step before it begins the next, since a GPU without work
    idles: the optimiser itself leaves out the update of a step that is not finite and of all that
    follow (`found_inf` of torch's fused optimisers), and the host reads what was found one step
    later. Otherwise it is read before the update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        failed: Callable[[int, float], Exception],
        *,
        deferred: bool,
    ):
        """`failed` makes the error to raise of the step's number and its loss."""
        self._failed, self._deferred = failed, deferred
        self._begun: deque[StepFigures] = deque()
        self._losses: list[float] = []
        if deferred:
            device = optimizer.param_groups[0]["params"][0].device
            self._left_out = torch.zeros((), device=device)
            optimizer.found_inf = self._left_out  # type: ignore[attr-defined]

    def before_update(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take note of a step whose gradients are there. Raises what `failed` makes, unless
        deferred."""
        values = torch.stack([loss, norm.to(loss.dtype)])
        ready = None
        if self._deferred:
            bad = values.isfinite().all().logical_not().float()
            torch.maximum(self._left_out, bad, out=self._left_out)
            if values.device.type == "cuda":
                values = values.to("cpu", non_blocking=True)
                ready = torch.cuda.Event()
                ready.record()
        self._begun.append(StepFigures(step, values, ready))
        if not self._deferred:
            self.settle()

    def settle(self, keep: int = 0) -> None:
        """Read what all steps but the last `keep` found. Raises what `failed` makes."""
        while len(self._begun) > keep:
            figures = self._begun.popleft()
            loss, norm = figures.read()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._begun.clear()
                raise self._failed(figures.step, loss)
            self._losses.append(loss)

    def mean_loss(self) -> float | None:
        """Mean of the losses since this was last asked; None without any."""
        self.settle()
        losses, self._losses = self._losses, []
        return float(np.mean(losses)) if losses else None

"""Scores of a model on a text: cross-entropy, and divergence from the reference's predictions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.targets import blocks_at_once
from experiments.evaluation.measuring.pieces import Windows

CHUNK = 256
"""Predictions of which the divergence is computed at once, so that it takes little memory."""


@dataclass(frozen=True)
class TextScores:
    """Sums over the predictions of each piece [pieces]."""

    nats: list[float]
    """Cross-entropy to the text."""
    tokens: list[int]
    """Predictions."""
    bytes: list[int]
    """Bytes that they are of."""
    kl: list[float] | None = None
    """Forward KL from the reference, in nats; None of the reference, and where tokens differ."""
    agreed: list[float] | None = None
    """Predictions whose likeliest token is the reference's."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@torch.no_grad()
def scored(
    model: Any,
    windows: Windows,
    *,
    reference: Any | None = None,
    progress: Callable[[int, int], None],
) -> TextScores:
    """Score `model`, against the `reference` where one is given that reads the same tokens."""
    pieces = len(windows.bytes)
    sums = {name: np.zeros(pieces) for name in ("nats", "tokens", "kl", "agreed")}
    vocabulary = model.config.get_text_config().vocab_size
    batch = blocks_at_once(windows.read.shape[1], vocabulary)
    for start in range(0, len(windows.read), batch):
        progress(start, len(windows.read))
        rows = slice(start, start + batch)
        columns = np.flatnonzero(windows.counted[rows].any(0))
        used = int(columns[-1]) + 1 if len(columns) else 1
        ids = torch.from_numpy(windows.read[rows, :used]).to(model.device)
        following = torch.from_numpy(windows.following[rows, :used]).to(model.device)
        counted = torch.from_numpy(windows.counted[rows, :used]).to(model.device)
        logits = _logits(model, ids)[counted]
        wanted = None if reference is None else _logits(reference, ids)[counted]
        found = _of_predictions(logits, following[counted], wanted)
        place = torch.from_numpy(windows.piece[rows])[:, None].expand(counted.shape)
        places = place[counted.cpu()].numpy()
        for name, values in found.items():
            np.add.at(sums[name], places, values.double().cpu().numpy())
    alone = reference is None
    return TextScores(
        nats=sums["nats"].tolist(),
        tokens=sums["tokens"].astype(int).tolist(),
        bytes=windows.bytes.tolist(),
        kl=None if alone else sums["kl"].tolist(),
        agreed=None if alone else sums["agreed"].tolist(),
    )


def _logits(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def _of_predictions(logits: Tensor, following: Tensor, wanted: Tensor | None) -> dict[str, Tensor]:
    """By name, values [predictions] of logits [predictions, vocab] and the tokens that follow.

    Vocabularies that are filled up to different sizes are compared in what both have.
    """
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(logits), CHUNK):
        rows = slice(start, start + CHUNK)
        own = logits[rows].float()
        log_probs = own.log_softmax(-1)
        nats = -log_probs.gather(1, following[rows, None])[:, 0]
        found = {"nats": nats, "tokens": torch.ones_like(nats)}
        if wanted is not None:
            size = min(own.shape[-1], wanted.shape[-1])
            p = wanted[rows, :size].float().log_softmax(-1)
            q = own[:, :size].log_softmax(-1)
            found["kl"] = (p.exp() * (p - q)).sum(-1)
            found["agreed"] = (p.argmax(-1) == q.argmax(-1)).float()
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in parts.items()}

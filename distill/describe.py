"""A model's distributions over some blocks, as the arrays that one of the formats stores."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.errors import DistillError
from distill.formats import TargetFormat
from distill.precision import autocast
from distill.shards import Arrays

_LOWEST = -6e4
"""Log-probabilities are stored in fp16."""


@torch.no_grad()
def describe(
    model: nn.Module,
    blocks: Tensor,
    form: TargetFormat,
    first: int = 0,
    precision: str = "fp32",
) -> Arrays:
    """The arrays for `blocks` [blocks, sequence] on the model's device, in slots `first`, ...

    Raises DistillError where the model's vocabulary is smaller than the format's, and where its
    answer is not finite.
    """
    with autocast(blocks.device, precision):
        logits: Tensor = model(input_ids=blocks, use_cache=False).logits
    if logits.shape[-1] < form.vocabulary:
        raise DistillError(
            f"the teacher has {logits.shape[-1]:,} logits, fewer than the vocabulary of "
            f"{form.vocabulary:,} that targets are asked for; give the vocabulary of its tokenizer"
        )
    logits = logits[..., : form.vocabulary].float()
    plain = torch.log_softmax(logits, -1)
    if plain.amax(-1).isnan().any():
        raise DistillError(
            f"the teacher's answer to blocks {first} to {first + len(blocks) - 1} is not finite: "
            "its activations overflow; check its weights, or let it compute in fp32"
        )
    following = plain[:, :-1].gather(-1, blocks[:, 1:, None]).squeeze(-1)
    arrays = {"next": torch.nn.functional.pad(following, (0, 1)).cpu().numpy()}
    scaled = plain if form.temperature == 1.0 else torch.log_softmax(logits / form.temperature, -1)
    if form.kind == "full":
        arrays["log_probs"] = _stored(scaled)
        arrays["rest"] = np.zeros(blocks.shape, np.float32)
        return arrays
    if form.kind == "sampled":
        drawn = [draw(row, form, first + index) for index, row in enumerate(scaled)]
        lengths = np.stack([row.pop("lengths") for row in drawn])
        ragged = {name: np.concatenate([row[name] for row in drawn]) for name in drawn[0]}
        return {**arrays, "lengths": lengths, **ragged}
    values, ids = scaled.topk(form.topk, -1)
    others = scaled.exp().scatter_(-1, ids, 0.0).sum(-1)
    arrays["rest"] = others.cpu().numpy()
    return {**arrays, "log_probs": _stored(values), **pack_ids(ids, form)}


def draw(log_probs: Tensor, form: TargetFormat, slot: int) -> Arrays:
    """Tokens drawn from each of `log_probs` [sequence, vocab], the same for a slot at all times.

    Returns `lengths` [sequence], how many tokens were drawn at each position, and one after the
    other, by falling probability, their `ids`, `counts` and `log_probs` [entries].

    Sampling is systematic: the points where the cumulative distribution is read are evenly spaced,
    from one random offset per position. A token of probability p is then drawn floor(np) or
    ceil(np) times in n draws, np times on average: as unbiased as the independent draws of arXiv
    2503.16870, and no scheme of n draws has a smaller variance of any token's count.
    """
    offset = np.random.default_rng([form.seed, slot]).random((len(log_probs), 1))
    points = ((np.arange(form.draws) + offset) / form.draws).astype(np.float32)
    cumulative = log_probs.exp().cumsum(-1)
    total = cumulative[:, -1:]
    # The sum may be off 1 by rounding; below it, no point falls on a token of no probability.
    places = torch.from_numpy(points).to(log_probs.device) * total
    places = torch.minimum(places, total.nextafter(torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, places, right=True)  # rising, equal ones side by side

    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    entry = begins.cumsum(-1) - 1
    counts = torch.zeros_like(ids).scatter_add_(-1, entry, torch.ones_like(ids))
    tokens = torch.zeros_like(ids).scatter_(-1, entry, ids)
    values = log_probs.gather(-1, tokens).masked_fill(counts == 0, -torch.inf)
    order = values.sort(dim=-1, descending=True, stable=True).indices
    kept = counts.gather(-1, order) > 0
    return {
        "lengths": kept.sum(-1).cpu().numpy().astype(form.count_type),
        "counts": counts.gather(-1, order)[kept].cpu().numpy().astype(form.count_type),
        "log_probs": _stored(values.gather(-1, order)[kept]),
        **pack_ids(tokens.gather(-1, order)[kept], form),
    }


def _stored(log_probs: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = log_probs.clamp_min(_LOWEST).half().cpu().numpy()
    return array


def pack_ids(ids: Tensor, form: TargetFormat) -> Arrays:
    """Token ids as `ids` uint16 and, where that does not hold the vocabulary, `high` uint8."""
    whole = ids.cpu().numpy()
    packed: Arrays = {"ids": whole.astype(np.uint16)}  # drops the bits above
    if form.id_bytes > 2:
        packed["high"] = (whole >> 16).astype(np.uint8)
    return packed


def unpack_ids(packed: Arrays) -> NDArray[np.int64]:
    ids = packed["ids"].astype(np.int64)
    if "high" in packed:
        ids |= packed["high"].astype(np.int64) << 16
    return ids

"""Lines about a model's folder: each says of something there that it is not used as it stands."""

import json

import torch

from distill.loss import slow_products
from pruning.families import shown_names
from workspace.models.model_source import GENERATION, ModelSource

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def notes_of(model: ModelSource, what: str = "teacher") -> list[str]:
    """Lines about the model that is the `what` of a run; none for an ordinary folder."""
    return [f"{what}: {line}" for line in (*_tensors(model), *_token_ids(model))]


def precision_note(dtype: torch.dtype, device: torch.device) -> str:
    """The type that the teacher computes in, and that of its products where it differs."""
    line = f"teacher: computes in {_shown(dtype)}"
    if not slow_products(dtype, device):
        return line
    return f"{line}, its products in float32: this processor has no instructions for narrower ones"


def _tensors(model: ModelSource) -> list[str]:
    lines = []
    aside = model.left_aside
    if aside:
        count = f"{len(aside):,} tensors" if len(aside) > 1 else "1 tensor"
        lines.append(f"{count} that transformers has no use for left out: {shown_names(aside)}")
    sizes = model.checkpoint.bytes_by_type
    others = {dtype: size for dtype, size in sizes.items() if dtype != model.dtype}
    if others:
        shares = [f"{size / sum(sizes.values()):.1%} {_shown(d)}" for d, size in others.items()]
        lines.append(
            f"used in {_shown(model.dtype)}, the type of most of its bytes ({', '.join(shares)})"
        )
    if model.checkpoint.index_file.exists() and (model.directory / "model.safetensors").exists():
        lines.append("model.safetensors is read, the shards of its index are not")
    return lines


def _token_ids(model: ModelSource) -> list[str]:
    """Ids that the model has no embedding for, which only who generates with it would meet."""
    settings = {"config.json": model.config.to_dict()}
    generation = model.directory / GENERATION
    if generation.exists():
        try:
            settings[GENERATION] = dict(json.loads(generation.read_text()))
        except (ValueError, TypeError):
            return [f"{GENERATION} is damaged, and so not known"]
    size = model.config.vocab_size
    lines = []
    for file, values in settings.items():
        for name in TOKEN_IDS:
            value = values.get(name)
            ids = value if isinstance(value, list) else [value]
            if any(isinstance(each, int) and each >= size for each in ids):
                lines.append(f"{name} in {file} is {value}, beyond the model's {size:,} tokens")
    return lines


def _shown(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

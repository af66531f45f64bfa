"""Proof that the text model of a multimodal one, alone, gives the same logits for text.

On a tiny random model of the very configuration, in float64: the sizes are the least that the type
can have, everything else is as the user's. Whatever is not of text stays on the meta device, so
that a model that needs it for text cannot answer at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from transformers.initialization import no_init_weights

from common.errors import PruningError, reason_of
from pruning.families.legality import is_legal
from pruning.families.loading import quiet
from pruning.families.shapes import architecture_of
from pruning.families.table import family_of, head_dim_of
from pruning.multimodal.configuration import (
    TEXT_CONFIG,
    changes,
    multimodal_class,
    with_text,
)
from pruning.slicing.configuration import student_config

TOKENS = 48
"""Of the text that both models read."""
VOCABULARY = 256
WINDOW = 16
"""Of layers that see only so many tokens, so that they differ from the others."""
MOST_DIFFERENCE = 1e-6
"""Share of the largest logit that rounding may put between the two: in a float64 model transformers
still computes rotary angles in fp32, and those of types that count positions from 1 are others."""
HIDDEN_SIZES = (32, 64, 96, 128, 192, 256)
INNER_SIZES = {"ffn": 32, "expert_ffn": 32, "shared_ffn": 32}
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
LEAST_LAYERS, MOST_LAYERS = 2, 16
SMALL = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
}
"""Values of a configuration that no size of the architecture is -> those of the tiny model."""


@dataclass(frozen=True)
class TextProof:
    """What the two tiny models had to say."""

    multimodal: str
    """Class of the multimodal model."""
    text: str
    """Class of the text model alone."""
    difference: float
    """Between their logits, as a share of the largest one."""
    tied: bool
    """Whether the multimodal class takes the embedding for its output head."""

    def __str__(self) -> str:
        return (
            f"proof: with text alone {self.multimodal} computes what {self.text} does (largest "
            f"difference of {TOKENS} tokens' logits {self.difference:.1e}, tiny and in float64)"
        )


def prove(whole: PretrainedConfig, text: PretrainedConfig) -> TextProof:
    """Hold a multimodal model of the configuration `whole` against its `text` model alone.

    Raises PruningError where they do not give the same logits, or cannot be asked.
    """
    tiny = _tiny(text, has_head_dim="head_dim" in whole.get_text_config().to_dict())
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    model_class = multimodal_class(whole)
    pair = f"the text model of {whole.model_type}"
    try:
        with quiet(), torch.no_grad():
            model, tied = _multimodal(with_text(whole, changes(text, tiny)))
            tiny.tie_word_embeddings = tied
            alone = kind(tiny).double().eval()
            _copy(model, alone)
            for each in (model.get_decoder(), alone):
                each.set_experts_implementation("eager")  # others have no float64
            ids = _text(whole)
            answers = [m(input_ids=ids, use_cache=False).logits for m in (model, alone)]
        difference = _difference(*answers)
    except Exception as problem:  # models break in as many ways as there are
        raise PruningError(
            f"{pair} cannot be shown to be a {text.model_type}: {reason_of(problem)}"
        ) from problem
    if not difference <= MOST_DIFFERENCE:
        raise PruningError(
            f"{pair} is no {text.model_type}: the logits of {model_class.__name__} and "
            f"{kind.__name__} for the same text differ by {difference:.1e} of the largest one"
        )
    return TextProof(model_class.__name__, kind.__name__, difference, tied)


def _tiny(text: PretrainedConfig, *, has_head_dim: bool) -> PretrainedConfig:
    """The configuration with the least sizes, and a layer of every kind that it has.

    Without `head_dim` in the multimodal configuration, the heads fill the hidden size.
    """
    config = _small(text)
    whole = architecture_of(config)
    kept = _kept_layers(config)
    group = whole.heads // whole.kv_heads
    inner = {axis: min(size, getattr(whole, axis)) for axis, size in INNER_SIZES.items()}
    for kv_heads in (min(2, whole.kv_heads), 1, whole.kv_heads):
        filled = group * kv_heads * head_dim_of(config)
        sizes = (*HIDDEN_SIZES, filled, whole.hidden) if has_head_dim else (filled, whole.hidden)
        for hidden, widths in product(sizes, (inner, {})):
            shape = replace(
                whole,
                layers=len(kept),
                hidden=min(hidden, whole.hidden),
                heads=group * kv_heads,
                kv_heads=kv_heads,
                **widths,
            )
            if is_legal(config, shape):
                return student_config(config, shape, kept)
    raise PruningError(f"no small {config.model_type} can be made of {whole}")


def _small(text: PretrainedConfig) -> PretrainedConfig:
    values = text.to_dict()
    values |= {name: min(values[name], size) for name, size in SMALL.items() if values.get(name)}
    values |= {name: _known(values.get(name)) for name in TOKEN_IDS}
    small: PretrainedConfig = type(text).from_dict(values)
    return small


def _known(token: Any) -> int | None:
    """A token that the tiny model has, where there was one."""
    return min(token, VOCABULARY - 1) if isinstance(token, int) else None


def _kept_layers(config: PretrainedConfig) -> Sequence[int]:
    """The first layers, until there is one of every kind; of many layers, the first of each."""
    family, values = family_of(config), config.to_dict()
    lists = [values[name] for name in family.per_layer_fields if isinstance(values.get(name), list)]
    first: dict[tuple[Any, ...], int] = {}
    for layer in range(architecture_of(config).layers):
        kind = (family.kind(config, layer), *(entries[layer] for entries in lists))
        first.setdefault(kind, layer)
    last = max(first.values())
    if last >= MOST_LAYERS:
        return sorted(first.values())
    return range(min(max(last + 1, LEAST_LAYERS), architecture_of(config).layers))


def _multimodal(config: PretrainedConfig) -> tuple[Any, bool]:
    """A random model whose text model alone is there; whether its head is its embedding."""
    with no_init_weights(), torch.device("meta"):
        model = multimodal_class(config)(config)
        model.tie_weights()
    decoder = model.get_decoder()
    head = model.get_output_embeddings() or decoder.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    real = type(decoder)(decoder.config).double()
    _fill(real)
    _put(model, decoder, real)
    if head is not None and head not in set(decoder.modules()):
        new = nn.Linear(head.in_features, head.out_features, head.bias is not None).double()
        _fill(new)
        if tied:
            new.weight = real.get_input_embeddings().weight
        _put(model, head, new)
    return model.eval(), tied


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of a module of `model`."""
    name = next(name for name, module in model.named_modules() if module is old)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)


def _fill(module: nn.Module) -> None:
    """Random values, of a size that no layer drowns the others."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        size = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.3
        weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * size)


def _copy(model: Any, alone: Any) -> None:
    """Give the text model alone the weights of the one inside."""
    decoder, target = model.get_decoder(), alone.get_decoder()
    if type(decoder) is type(alone):
        target = alone
    target.load_state_dict(decoder.state_dict())
    head = model.get_output_embeddings()
    if head is not None:
        alone.get_output_embeddings().load_state_dict(head.state_dict())


def _text(whole: PretrainedConfig) -> Tensor:
    """Random tokens, none of which stands for anything but text."""
    ids = torch.tensor(text_tokens(whole, VOCABULARY))
    picked = torch.randint(len(ids), (1, TOKENS), generator=torch.Generator().manual_seed(1))
    return ids[picked]


def text_tokens(whole: PretrainedConfig, vocabulary: int) -> list[int]:
    """Tokens below `vocabulary` that stand for text, and not for pictures, sound or an end."""
    special: set[Any] = set()
    values = whole.to_dict()
    for name, value in (*values.items(), *values[TEXT_CONFIG].items()):
        if name.endswith(("token_id", "token_index")):
            special |= set(value) if isinstance(value, list) else {value}
    return [token for token in range(vocabulary) if token not in special]


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())

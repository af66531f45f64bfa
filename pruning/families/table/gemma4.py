"""Row of Gemma 4: layers with a window and layers without, whose heads differ in size and number.

Layers without a window may have larger heads, fewer KV heads, and keys that are the values. The
last layers may read the keys and values of an earlier one; every layer may add an embedding of its
own to the stream.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture, Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN
from pruning.families.kinds import STAYS
from pruning.families.spec import Constraint, Family
from pruning.families.table.common import (
    EXPERTS_ALIGNED,
    GATED_FFN,
    LLAMA_FIELDS,
    PRE_NORMS,
    llama_like,
)
from pruning.families.words import Axes, AxisRows, LayerHeads, OlderNames, Rescale

FULL, WINDOWED = "full_attention", "sliding_attention"
PER_LAYER = {"head_dim", "num_key_value_heads"}
"""What layers without a window may have otherwise than those with one."""
KEYS_AND_VALUES = ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias", "k_norm.weight")
PROJECTIONS: dict[str, Axes] = {
    "q_proj.weight": ("heads", "hidden"),
    "q_proj.bias": ("heads",),
    "k_proj.weight": ("kv_heads", "hidden"),
    "k_proj.bias": ("kv_heads",),
    "v_proj.weight": ("kv_heads", "hidden"),
    "v_proj.bias": ("kv_heads",),
    "o_proj.weight": ("hidden", "heads"),
    "o_proj.bias": ("hidden",),
    "q_norm.weight": ("head_dim",),
    "k_norm.weight": ("head_dim",),
}
OF_FULL = {"heads": "full_heads", "kv_heads": "full_kv_heads", "head_dim": "full_head_dim"}
"""Axis of a layer with a window -> that of one without."""
LAYER_INPUT: dict[str, Axes] = {
    "per_layer_input_gate.weight": ("layer_input", "hidden"),
    "per_layer_projection.weight": ("hidden", "layer_input"),
    "post_per_layer_input_norm.weight": ("hidden",),
}
SHARED: dict[str, Axes] = {
    name: tuple("shared_ffn" if axis == "ffn" else axis for axis in axes)
    for name, axes in GATED_FFN.items()
}
FOR_LAYERS: dict[str, Axes] = {
    "model.embed_tokens_per_layer.weight": ("layer_vocab", "layer_inputs"),
    "model.per_layer_model_projection.weight": ("layer_inputs", "hidden"),
    "model.per_layer_projection_norm.weight": ("layer_input",),
}
"""What makes the embeddings of the layers, all beside each other."""


def _full_heads(config: PretrainedConfig) -> tuple[int, int]:
    """(channels per head, KV heads) of a layer without a window.

    Raises PruningError for a configuration whose layers differ in anything else.
    """
    layers: Any = getattr(config, "per_layer_config", None)
    if layers is None:  # older versions have fields for them
        kv_heads = config.num_global_key_value_heads if config.attention_k_eq_v else None
        return (
            config.global_head_dim or config.head_dim,
            kv_heads or config.num_key_value_heads,
        )
    told = set(config.per_layer_attributes or ())
    try:
        kinds = {kind: layers[kind] for kind in set(config.layer_types)}
    except ValueError as problem:
        raise PruningError(f"{problem}; layers of one kind must be alike to be cut") from problem
    if not told <= PER_LAYER or any(_differs(config, kinds.get(WINDOWED), n) for n in told):
        raise PruningError(
            f"per_layer_config has {', '.join(sorted(told))}; only layers without a window may "
            f"differ, in {' and '.join(sorted(PER_LAYER))}"
        )
    return kinds[FULL].head_dim, kinds[FULL].num_key_value_heads


def _differs(config: PretrainedConfig, layer: Any, name: str) -> bool:
    return layer is not None and getattr(layer, name) != vars(config)[name]


def _together(config: PretrainedConfig) -> int:
    """KV heads of a layer with a window for each of a layer without one."""
    head_dim, full = _full_heads(config)
    kv_heads: int = vars(config)["num_key_value_heads"]
    each, left = divmod(kv_heads, full)
    if left or head_dim % max(each, 1):
        raise PruningError(
            f"its layers without a window have {full} KV heads of {head_dim} channels, and the "
            f"others {kv_heads}; the first number must divide the last, and what comes out the "
            "channels"
        )
    return each


def _full(config: PretrainedConfig, layer: int) -> bool:
    return bool(config.layer_types[layer] == FULL)


def _sources(config: PretrainedConfig) -> list[int | None]:
    """Layer whose keys and values each layer reads, the last of its kind that has its own; None for
    a layer with its own."""
    kinds: list[str] = config.layer_types
    first = len(kinds) - config.num_kv_shared_layers
    last = {kind: layer for layer, kind in enumerate(kinds[:first])}
    lacking = set(kinds[first:]) - set(last)
    if lacking:
        raise PruningError(
            f"num_kv_shared_layers is {config.num_kv_shared_layers}, and no layer before these is "
            f"a {min(lacking)} whose keys and values they could read"
        )
    return [last[kind] if layer >= first else None for layer, kind in enumerate(kinds)]


def _traits(config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    """The last layer, which must have no window, always stays, and so do those that others read."""
    sources = _sources(config)
    traits = ["without a window" if _full(config, layer) else "with a window"]
    if sources[layer] is not None:
        traits.append("with the keys and values of another")
    stays = layer == len(sources) - 1 or layer in sources
    return (*traits, STAYS) if stays else tuple(traits)


def _heads(config: PretrainedConfig, layer: int) -> LayerHeads:
    source = _sources(config)[layer]
    if _full(config, layer):
        return LayerHeads(_full_heads(config)[0], _together(config), source)
    return LayerHeads(vars(config)["head_dim"], kv_source=source)


def _own_tensors(config: PretrainedConfig, layer: int) -> dict[str, Axes]:
    """Attention, and an FFN that is twice as wide in layers that read keys and values."""
    full, reads = _full(config, layer), _sources(config)[layer] is not None
    tensors: dict[str, Axes] = {}
    for name, axes in PROJECTIONS.items():
        values = name.startswith("v_proj") and full and config.attention_k_eq_v
        if not values and not (reads and name in KEYS_AND_VALUES):
            own = tuple(OF_FULL.get(axis, axis) for axis in axes) if full else axes
            tensors[f"self_attn.{name}"] = own
    if reads and config.use_double_wide_mlp:
        wide = {"ffn": "wide_ffn", "shared_ffn": "wide_shared_ffn"}
        ffn = SHARED if config.enable_moe_block else GATED_FFN
        tensors |= {name: tuple(wide.get(a, a) for a in axes) for name, axes in ffn.items()}
    return tensors


def _rows(config: PretrainedConfig) -> Mapping[str, AxisRows]:
    head_dim, together = _full_heads(config)[0], _together(config)
    each = config.hidden_size_per_layer_input or 0
    return {
        "full_heads": AxisRows("heads", head_dim),
        "full_kv_heads": AxisRows("kv_heads", head_dim // together),
        "full_head_dim": AxisRows(rows=head_dim),
        "wide_ffn": AxisRows("ffn", 2),
        "wide_shared_ffn": AxisRows("shared_ffn", 2),
        "layer_vocab": AxisRows(rows=config.vocab_size_per_layer_input),
        "layer_input": AxisRows(rows=each),
        "layer_inputs": AxisRows("layers", each),
    }


def _parts(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    """What is an FFN without experts is the shared one with them."""
    return ATTENTION, EXPERTS if config.enable_moe_block else FFN


def _pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    sources = _sources(config)
    return {"num_kv_shared_layers": sum(sources[layer] is not None for layer in kept)}


def _of_full(head_dim: int, kv_heads: int, *, fewer: bool) -> dict[str, Any]:
    """The fields of a released configuration for layers without a window."""
    number = kv_heads if fewer else None
    return {"global_head_dim": head_dim, "num_global_key_value_heads": number}


def _values(config: PretrainedConfig, student: Architecture, kept: list[int]) -> dict[str, Any]:
    head_dim, kv_heads = _full_heads(config)[0], student.kv_heads // _together(config)
    values = _of_full(head_dim, kv_heads, fewer=config.attention_k_eq_v)
    if hasattr(config, "per_layer_config"):
        own = {"head_dim": head_dim, "num_key_value_heads": kv_heads}
        places = [place for place, layer in enumerate(kept) if _full(config, layer)]
        values["per_layer_config"] = {str(place): dict(own) for place in places}
    return values


def _released_fields(config: PretrainedConfig) -> dict[str, Any]:
    return _of_full(*_full_heads(config), fewer=config.attention_k_eq_v)


def _rescale(config: PretrainedConfig, student: Architecture) -> dict[str, Rescale]:
    """The student multiplies its embedding by sqrt(h') where the teacher does by sqrt(h), and what
    it projects of it for the layers, and what routers read, by the inverse.

    Where the head is the embedding, the final norm takes the factor back.
    """
    factor = (config.hidden_size / student.hidden) ** 0.5
    rescale = {"model.embed_tokens.weight": Rescale(factor)}
    if config.tie_word_embeddings:
        rescale["model.norm.weight"] = Rescale(1 / factor)
    if config.hidden_size_per_layer_input:
        rescale["model.per_layer_model_projection.weight"] = Rescale(1 / factor)
    if config.enable_moe_block:
        routers = [f"model.layers.{layer}.router.scale" for layer in range(student.layers)]
        rescale |= dict.fromkeys(routers, Rescale(1 / factor))
    return rescale


def _whole_groups(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return a.kv_heads % _together(config) == 0


def _aligned(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return EXPERTS_ALIGNED.holds(config, a) | (not config.enable_moe_block)


GEMMA4 = (
    llama_like(
        "gemma4_text",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
            **FOR_LAYERS,
        },
        layer_tensors={
            **PRE_NORMS,
            "pre_feedforward_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            "layer_scalar": ("1",),
            **LAYER_INPUT,
        },
        expert_tensors={
            **SHARED,
            "router.proj.weight": ("experts", "hidden"),
            "router.scale": ("hidden",),
            "router.per_expert_scale": ("experts",),
            "experts.gate_up_proj": ("experts", "expert_ffn+expert_ffn", "hidden"),
            "experts.down_proj": ("experts", "hidden", "expert_ffn"),
            "pre_feedforward_layernorm_2.weight": ("hidden",),
            "post_feedforward_layernorm_1.weight": ("hidden",),
            "post_feedforward_layernorm_2.weight": ("hidden",),
        },
        own_tensors=_own_tensors,
        flags={
            **{f"self_attn.{name}": ("attention_bias",) for name in PROJECTIONS if "bias" in name},
            **dict.fromkeys([*LAYER_INPUT, *FOR_LAYERS], ("hidden_size_per_layer_input",)),
        },
        buffers=("layer_scalar",),
        parts_of=_parts,
        traits=_traits,
        layer_heads=_heads,
        axis_rows=_rows,
        fields=LLAMA_FIELDS
        | {
            "experts": "num_experts",
            "expert_ffn": "moe_intermediate_size",
            "shared_ffn": "intermediate_size",
        },
        per_token="top_k_experts",
        attention_norms=("input_layernorm", "post_attention_layernorm"),
        norm_scales=("router.scale",),
        experts_module="experts",
        expert_output="experts.down_proj",
        shared_output="mlp.down_proj",
        is_sparse=lambda config, layer: bool(config.enable_moe_block),
        cut_pattern=_pattern,
        values_of_layers=_values,
        older_names=OlderNames(rope={}, of_layers=_released_fields),
        rescale=_rescale,
        constraints=(
            Constraint("KV heads that are whole ones in layers without a window", _whole_groups),
            Constraint(EXPERTS_ALIGNED.rule, _aligned),
        ),
    ),
)

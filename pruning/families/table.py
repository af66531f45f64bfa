"""Table of families: one row per Hugging Face model type; nothing else that cuts asks for it.

How to add a row is told in docs/pruning.md.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture, Sizes
from pruning.families.spec import Axes, Constraint, Family, OlderNames, Rescale

LLAMA_FIELDS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
}
ATTENTION: dict[str, Axes] = {
    "self_attn.q_proj.weight": ("heads", "hidden"),
    "self_attn.k_proj.weight": ("kv_heads", "hidden"),
    "self_attn.v_proj.weight": ("kv_heads", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "heads"),
}
QKV_BIASES: dict[str, Axes] = {
    "self_attn.q_proj.bias": ("heads",),
    "self_attn.k_proj.bias": ("kv_heads",),
    "self_attn.v_proj.bias": ("kv_heads",),
}
HEAD_NORMS: dict[str, Axes] = {
    "self_attn.q_norm.weight": ("head_dim",),
    "self_attn.k_norm.weight": ("head_dim",),
}
PRE_NORMS: dict[str, Axes] = {
    "input_layernorm.weight": ("hidden",),
    "post_attention_layernorm.weight": ("hidden",),
}
GATED_FFN: dict[str, Axes] = {
    "mlp.gate_proj.weight": ("ffn", "hidden"),
    "mlp.up_proj.weight": ("ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
}
FFN_BIASES: dict[str, Axes] = {
    "mlp.gate_proj.bias": ("ffn",),
    "mlp.up_proj.bias": ("ffn",),
    "mlp.down_proj.bias": ("hidden",),
}
ATTENTION_BIASES: dict[str, Axes] = {**QKV_BIASES, "self_attn.o_proj.bias": ("hidden",)}

FUSED_EXPERTS: dict[str, Axes] = {
    "mlp.gate.weight": ("experts", "hidden"),
    "mlp.experts.gate_up_proj": ("experts", "expert_ffn+expert_ffn", "hidden"),
    "mlp.experts.down_proj": ("experts", "hidden", "expert_ffn"),
}


def _flagged(flag: str, tensors: Mapping[str, Axes]) -> dict[str, tuple[str, Axes]]:
    return {name: (flag, axes) for name, axes in tensors.items()}


BIASED_ATTENTION = _flagged("attention_bias", ATTENTION_BIASES)
BIASED_FFN = _flagged("mlp_bias", FFN_BIASES)

HEADS_DIVIDE_HIDDEN = Constraint(
    "a hidden size that the heads divide",
    lambda config, a: a.hidden % np.maximum(a.heads, 1) == 0,
)
HIDDEN_FOLLOWS_HEADS = Constraint(
    "a hidden size of as many heads as it has, of the teacher's channels each",
    lambda config, a: a.hidden == a.heads * head_dim_of(config),
)

EXPERTS_ALIGNED = Constraint(
    "a hidden size and an expert FFN that 8 divides (grouped matrix products read 16 bytes)",
    lambda config, a: (a.hidden % 8 == 0) & (a.expert_ffn % 8 == 0),
)


def _llama_like(model_type: str, **row: Any) -> Family:
    """A row that differs from Llama's in what is given."""
    llama: dict[str, Any] = {
        "model_tensors": {
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
        },
        "output_head": ("lm_head.weight", ("vocab", "hidden")),
        "layer_prefix": "model.layers",
        "layer_tensors": {**PRE_NORMS, **ATTENTION},
        "dense_tensors": GATED_FFN,
        "fields": LLAMA_FIELDS,
        "attention_input": "self_attn.q_proj",
        "attention_output": "self_attn.o_proj",
        "ffn_input": "mlp",
        "ffn_output": "mlp.down_proj",
    }
    return Family(model_type, **(llama | row))


def _gemma(model_type: str, head_norms: Mapping[str, Axes], **row: Any) -> Family:
    """Four norms per layer, each multiplying by 1 + w; embeddings times sqrt(hidden size)."""
    return _llama_like(
        model_type,
        layer_tensors={
            **PRE_NORMS,
            "pre_feedforward_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            **head_norms,
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("input_layernorm", "post_attention_layernorm"),
        norm_offset=1.0,
        rescale=_gemma_embedding,
        constraints=(HEADS_DIVIDE_HIDDEN,),
        **row,
    )


def _gemma_embedding(config: PretrainedConfig, student: Architecture) -> dict[str, Rescale]:
    """The student multiplies its embedding by sqrt(h') where the teacher does by sqrt(h).

    Where the head is the embedding, the final norm takes the factor back.
    """
    factor = (config.hidden_size / student.hidden) ** 0.5
    rescale = {"model.embed_tokens.weight": Rescale(factor)}
    if config.tie_word_embeddings:
        rescale["model.norm.weight"] = Rescale(1 / factor, offset=1.0)
    return rescale


def _phi3_rotary_fits(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    """Phi-3's configuration checks its long-context factors against hidden size / heads."""
    rope = config.rope_parameters or {}
    factors = rope.get("short_factor")
    if factors is None:
        return a.hidden >= 1
    channels = a.hidden // np.maximum(a.heads, 1) * rope.get("partial_rotary_factor", 1.0)
    return np.floor_divide(channels, 1) // 2 == len(factors)


def _has_experts(config: PretrainedConfig, layer: int) -> bool:
    return True


def _qwen3_moe_sparse(config: PretrainedConfig, layer: int) -> bool:
    on_step = (layer + 1) % config.decoder_sparse_step == 0
    return layer not in config.mlp_only_layers and config.num_local_experts > 0 and on_step


def _qwen3_moe_pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """The kept dense layers by their new places: the step alone can no longer name them."""
    dense = [place for place, layer in enumerate(kept) if not _qwen3_moe_sparse(config, layer)]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


def _full_layers_first(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """How many of the kept layers come before those that may have a sliding window."""
    return {"max_window_layers": sum(layer < config.max_window_layers for layer in kept)}


def _gpt2_keeps_depth(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    scaled = getattr(config, "scale_attn_by_inverse_layer_idx", False)
    return (a.layers == config.num_hidden_layers) | (not scaled)


ROWS = (
    _llama_like(
        "llama",
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        constraints=(HEADS_DIVIDE_HIDDEN,),
    ),
    _llama_like("mistral"),
    _llama_like(
        "nemotron",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
            "model.norm.bias": ("hidden",),
        },
        layer_tensors={
            **PRE_NORMS,
            "input_layernorm.bias": ("hidden",),
            "post_attention_layernorm.bias": ("hidden",),
            **ATTENTION,
        },
        dense_tensors={
            "mlp.up_proj.weight": ("ffn", "hidden"),
            "mlp.down_proj.weight": ("hidden", "ffn"),
        },
        optional_tensors=BIASED_ATTENTION
        | _flagged("mlp_bias", {"mlp.up_proj.bias": ("ffn",), "mlp.down_proj.bias": ("hidden",)}),
        norm_offset=1.0,
    ),
    _llama_like(
        "qwen2",
        layer_tensors={**PRE_NORMS, **ATTENTION, **QKV_BIASES},
        cut_pattern=_full_layers_first,
        windows=True,
    ),
    _llama_like(
        "qwen3",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        cut_pattern=_full_layers_first,
        windows=True,
    ),
    _gemma("gemma2", {}, windows=True),
    _gemma(
        "gemma3_text",
        HEAD_NORMS,
        periods={
            "sliding_window_pattern": ("layer_types", "full_attention"),
            "_sliding_window_pattern": ("layer_types", "full_attention"),
        },
        older_names=OlderNames(local_rope_theta="rope_local_base_freq"),
    ),
    _llama_like(
        "phi3",
        layer_tensors={
            **PRE_NORMS,
            "self_attn.qkv_proj.weight": ("heads+kv_heads+kv_heads", "hidden"),
            "self_attn.o_proj.weight": ("hidden", "heads"),
        },
        dense_tensors={
            "mlp.gate_up_proj.weight": ("ffn+ffn", "hidden"),
            "mlp.down_proj.weight": ("hidden", "ffn"),
        },
        attention_input="self_attn.qkv_proj",
        constraints=(
            Constraint("hidden / heads as in the teacher (long-context rope)", _phi3_rotary_fits),
        ),
        older_names=OlderNames(rope_scaling=("type", "short_factor", "long_factor")),
    ),
    _llama_like(  # norms follow the sub-layers; q and k are normed over the whole projection
        "olmo2",
        layer_tensors={
            "post_attention_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            "self_attn.q_norm.weight": ("heads",),
            "self_attn.k_norm.weight": ("kv_heads",),
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("post_attention_layernorm",),
        older_names=OlderNames(rope_scaling=("type", "factor")),
    ),
    _llama_like("granite", optional_tensors=BIASED_ATTENTION | BIASED_FFN),
    _llama_like(
        "smollm3",
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        per_layer_fields=("layer_types", "no_rope_layers"),
        periods={"no_rope_layer_interval": ("no_rope_layers", 0)},
        windows=True,
    ),
    Family(
        "gpt2",  # Conv1D weights are [in, out]
        model_tensors={
            "transformer.wte.weight": ("vocab", "hidden"),
            "transformer.wpe.weight": ("positions", "hidden"),
            "transformer.ln_f.weight": ("hidden",),
            "transformer.ln_f.bias": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="transformer.h",
        layer_tensors={
            "ln_1.weight": ("hidden",),
            "ln_1.bias": ("hidden",),
            "attn.c_attn.weight": ("hidden", "heads+heads+heads"),
            "attn.c_attn.bias": ("heads+heads+heads",),
            "attn.c_proj.weight": ("heads", "hidden"),
            "attn.c_proj.bias": ("hidden",),
            "ln_2.weight": ("hidden",),
            "ln_2.bias": ("hidden",),
        },
        dense_tensors={
            "mlp.c_fc.weight": ("hidden", "ffn"),
            "mlp.c_fc.bias": ("ffn",),
            "mlp.c_proj.weight": ("ffn", "hidden"),
            "mlp.c_proj.bias": ("hidden",),
        },
        fields={"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner"},
        attention_input="attn.c_attn",
        attention_output="attn.c_proj",
        attention_norms=("ln_1",),
        ffn_input="mlp",
        ffn_output="mlp.c_proj",
        has_head_dim=False,
        constraints=(
            HIDDEN_FOLLOWS_HEADS,
            Constraint(
                "all its layers (scale_attn_by_inverse_layer_idx ties them to their places)",
                _gpt2_keeps_depth,
            ),
        ),
        derived=(".attn.bias", ".attn.masked_bias"),
        older_names=OlderNames(copies={"n_ctx": "n_positions"}),
    ),
    Family(
        "gpt_neox",  # query, key and value interleaved head by head
        model_tensors={
            "gpt_neox.embed_in.weight": ("vocab", "hidden"),
            "gpt_neox.final_layer_norm.weight": ("hidden",),
            "gpt_neox.final_layer_norm.bias": ("hidden",),
        },
        output_head=("embed_out.weight", ("vocab", "hidden")),
        layer_prefix="gpt_neox.layers",
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "input_layernorm.bias": ("hidden",),
            "post_attention_layernorm.weight": ("hidden",),
            "post_attention_layernorm.bias": ("hidden",),
            "attention.query_key_value.weight": ("qkv_heads", "hidden"),
            "attention.dense.weight": ("hidden", "heads"),
        },
        dense_tensors={
            "mlp.dense_h_to_4h.weight": ("ffn", "hidden"),
            "mlp.dense_h_to_4h.bias": ("ffn",),
            "mlp.dense_4h_to_h.weight": ("hidden", "ffn"),
            "mlp.dense_4h_to_h.bias": ("hidden",),
        },
        optional_tensors=_flagged(
            "attention_bias",
            {
                "attention.query_key_value.bias": ("qkv_heads",),
                "attention.dense.bias": ("hidden",),
            },
        ),
        fields={
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "heads": "num_attention_heads",
            "ffn": "intermediate_size",
        },
        attention_input="attention.query_key_value",
        attention_output="attention.dense",
        ffn_input="mlp",
        ffn_output="mlp.dense_4h_to_h",
        has_head_dim=False,
        constraints=(HIDDEN_FOLLOWS_HEADS,),
        derived=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
        older_names=OlderNames(
            rope={"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        ),
    ),
    _llama_like(
        "mixtral",
        dense_tensors={},
        expert_tensors={
            "block_sparse_moe.gate.weight": ("experts", "hidden"),
            "block_sparse_moe.experts.{expert}.w1.weight": ("expert_ffn", "hidden"),
            "block_sparse_moe.experts.{expert}.w3.weight": ("expert_ffn", "hidden"),
            "block_sparse_moe.experts.{expert}.w2.weight": ("hidden", "expert_ffn"),
        },
        fused_experts=FUSED_EXPERTS,
        experts_module="mlp.experts",
        expert_output="block_sparse_moe.experts.{expert}.w2.weight",
        is_sparse=_has_experts,
        fields={
            **{axis: name for axis, name in LLAMA_FIELDS.items() if axis != "ffn"},
            "experts": "num_local_experts",
            "expert_ffn": "intermediate_size",
        },
        constraints=(EXPERTS_ALIGNED,),
    ),
    _llama_like(
        "qwen3_moe",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        expert_tensors={
            "mlp.gate.weight": ("experts", "hidden"),
            "mlp.experts.{expert}.gate_proj.weight": ("expert_ffn", "hidden"),
            "mlp.experts.{expert}.up_proj.weight": ("expert_ffn", "hidden"),
            "mlp.experts.{expert}.down_proj.weight": ("hidden", "expert_ffn"),
        },
        fused_experts=FUSED_EXPERTS,
        experts_module="mlp.experts",
        expert_output="mlp.experts.{expert}.down_proj.weight",
        is_sparse=_qwen3_moe_sparse,
        cut_pattern=_qwen3_moe_pattern,
        fields=LLAMA_FIELDS
        | {"experts": "num_local_experts", "expert_ffn": "moe_intermediate_size"},
        constraints=(EXPERTS_ALIGNED,),
        older_names=OlderNames(copies={"num_experts": "num_local_experts"}),
    ),
)

FAMILIES: dict[str, Family] = {row.model_type: row for row in ROWS}


def family_of(config: PretrainedConfig) -> Family:
    """The row for a model's configuration. Raises PruningError for a type without a row."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise PruningError(
            f"models of type {config.model_type!r} are not supported; supported types: {known}. A "
            "new one is a row of the table in pruning/families/table.py (docs/pruning.md shows how)"
        )
    if getattr(config, "quantization_config", None):
        raise PruningError(
            "the model is quantised; dequantise it and save it in bf16 or fp32 first "
            "(model.dequantize() and save_pretrained in transformers)"
        )
    return family


def head_dim_of(config: PretrainedConfig) -> int:
    """Channels per head, also where the configuration leaves it to be derived."""
    heads = config.num_attention_heads
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)

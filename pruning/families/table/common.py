"""Parts that many rows share: groups of tensors, constraints, and the row that most differ little
from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.spec import Constraint, Family
from pruning.families.words import Axes, AxisRows

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
FUSED_GATED_FFN: dict[str, Axes] = {
    "mlp.gate_up_proj.weight": ("ffn+ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
}
PLAIN_FFN: dict[str, Axes] = {
    "mlp.up_proj.weight": ("ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
}
PLAIN_FFN_BIASES: dict[str, Axes] = {
    "mlp.up_proj.bias": ("ffn",),
    "mlp.down_proj.bias": ("hidden",),
}
ATTENTION_BIASES: dict[str, Axes] = {**QKV_BIASES, "self_attn.o_proj.bias": ("hidden",)}


def flagged(flag: str, tensors: Mapping[str, Axes]) -> dict[str, tuple[str, Axes]]:
    """Those tensors as ones that the configuration's `flag` brings."""
    return {name: (flag, axes) for name, axes in tensors.items()}


def with_biases(norms: Mapping[str, Axes]) -> dict[str, Axes]:
    """The weights of these norms, and as many biases."""
    biases = {name.replace(".weight", ".bias"): axes for name, axes in norms.items()}
    return dict(norms) | biases


BIASED_ATTENTION = flagged("attention_bias", ATTENTION_BIASES)
BIASED_QKV = flagged("attention_bias", QKV_BIASES)
BIASED_FFN = flagged("mlp_bias", FFN_BIASES)
BIASED_PLAIN_FFN = flagged("mlp_bias", PLAIN_FFN_BIASES)

EXPERTS_ALIGNED = Constraint(
    "a hidden size and an expert FFN that 8 divides (grouped matrix products read 16 bytes)",
    lambda config, a: (a.hidden % 8 == 0) & (a.expert_ffn % 8 == 0),
)
HEADS_DIVIDE_HIDDEN = Constraint(
    "a hidden size that the heads divide",
    lambda config, a: a.hidden % np.maximum(a.heads, 1) == 0,
)
HIDDEN_FOLLOWS_HEADS = Constraint(
    "a hidden size of as many heads as it has, of the teacher's channels each",
    lambda config, a: a.hidden == a.heads * (config.hidden_size // config.num_attention_heads),
)


def rows_of_heads(config: PretrainedConfig) -> Mapping[str, AxisRows]:
    """Axes of tensors with one row for each head."""
    return {"each_head": AxisRows("heads"), "each_kv_head": AxisRows("kv_heads")}


def llama_like(model_type: str, **row: Any) -> Family:
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

"""A reader of DeciLM, written from the words of its configuration alone: no part of the project."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


def ffn_size(multiplier: float, hidden: int) -> int:
    """As DeciLM's own code has it: rounded up to a multiple of 256."""
    size = int(2 * multiplier * hidden / 3)
    return size if size % 256 == 0 else size + 256 - size % 256


class Layer(nn.Module):
    """Attention and FFN, either of which may be a no-op."""

    def __init__(self, config: LlamaConfig, words: dict[str, Any], index: int):
        super().__init__()
        sized = deepcopy(config)
        attention, ffn = words["attention"], words["ffn"]
        if not attention["no_op"]:
            sized.num_key_value_heads = sized.num_attention_heads // attention["n_heads_in_group"]
        if not ffn["no_op"]:
            sized.intermediate_size = ffn_size(ffn["ffn_mult"], sized.hidden_size)
        layer = LlamaDecoderLayer(sized, index)
        if not attention["no_op"]:
            self.input_layernorm, self.self_attn = layer.input_layernorm, layer.self_attn
            if getattr(config, "qkv_bias", False):
                for name in ("q_proj", "k_proj", "v_proj"):
                    getattr(self.self_attn, name).bias = nn.Parameter(
                        torch.empty(getattr(self.self_attn, name).out_features)
                    )
        if not ffn["no_op"]:
            self.post_attention_layernorm = layer.post_attention_layernorm
            self.mlp = layer.mlp

    def forward(self, hidden_states: Tensor, **passed: Any) -> Tensor:
        if hasattr(self, "self_attn"):
            normed = self.input_layernorm(hidden_states)
            hidden_states = hidden_states + self.self_attn(normed, **passed)[0]
        if hasattr(self, "mlp"):
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


def read_decilm(folder: Path) -> LlamaForCausalLM:
    """The model in `folder`, in float64."""
    values = json.loads((folder / "config.json").read_text())
    assert values["architectures"] == ["DeciLMForCausalLM"]
    words = values.pop("block_configs")
    config = LlamaConfig.from_dict(values | {"model_type": "llama"})
    config.dtype = torch.float64
    model = LlamaForCausalLM(config)
    model.model.layers = nn.ModuleList(
        Layer(config, each, index) for index, each in enumerate(words)
    )
    model = model.double()
    loaded = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys == (["lm_head.weight"] if config.tie_word_embeddings else [])
    model.tie_weights()
    return model.eval()

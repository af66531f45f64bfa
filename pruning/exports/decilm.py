"""Per-layer students in the words of DeciLM, which other software than ours reads.

DeciLM has a Llama block per layer, described by `block_configs` in config.json. Its readers
(vLLM, SGLang, mlx-lm and llama.cpp with its converter) take less than the words could say, so that
the copy is padded with zeros; what some of them refuse even so is in `pruning.engines.decilm`:

- one number of query heads in all layers, that of hidden size / channels of a head where it can be;
- FFN in multiples of 256, since they round up to it;
- an FFN wherever there is attention: llama.cpp drops the attention's output where there is none;
- attention in the first layer: llama.cpp and vLLM take sizes and residual stream from it.

A layer with neither attention nor FFN does nothing and is left out.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.exports.padding import PaddedLayer, write_padded_tensors
from pruning.families.architecture import Architecture
from pruning.families.block import Block
from pruning.families.checkpoint import Checkpoint
from pruning.families.config_file import CONFIG_FILE, raw_config
from pruning.families.shapes import architecture_of
from pruning.families.table import head_dim_of

FFN_MULTIPLE = 256
"""DeciLM says an FFN as `ffn_mult`, and its readers round 2/3 x ffn_mult x hidden size up to it."""
DECILM_TYPE = "nemotron-nas"
"""What config.json calls it."""
CODE_FILE = "configuration_decilm.py"
MODEL_TYPES = {"llama": {}, "mistral": {}, "qwen2": {"qkv_bias": True}}
"""Types that have Llama's blocks -> what else their configuration must say."""
ROPE_TYPES = ("default", "llama3")
"""Of rotary embeddings; llama.cpp's converter forgets any other without a word."""
KEPT = (
    *("vocab_size", "hidden_size", "hidden_act", "rms_norm_eps", "max_position_embeddings"),
    *("attention_bias", "mlp_bias", "tie_word_embeddings", "initializer_range", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype"),
    *("rope_theta", "rope_scaling", "rope_parameters", "transformers_version"),
)
"""Keys of config.json that mean the same to DeciLM's readers."""


def write_decilm(student: Checkpoint, directory: Path) -> None:
    """Write weights and configuration of a per-layer `student` as a DeciLM into `directory`.

    Raises:
        PruningError: DeciLM has no words for this student.
    """
    layers = decilm_layers(student.config, architecture_of(student.config))
    write_padded_tensors(student, layers, directory)
    values = decilm_values(raw_config(student.directory), student.config, layers)
    text = json.dumps(values, indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(CODE_FILE), directory / CODE_FILE)


def decilm_layers(config: PretrainedConfig, architecture: Architecture) -> list[PaddedLayer]:
    """The layers of the copy, in order.

    Raises:
        PruningError: DeciLM has no words for such a student.
    """
    reason = why_no_decilm(config, architecture)
    if reason:
        raise PruningError(f"{architecture} cannot be written as a DeciLM: {reason}")
    return list(_layers(config, architecture))


def why_no_decilm(config: PretrainedConfig, architecture: Architecture) -> str:
    """Why DeciLM has no words for such a student; empty where it has.

    Args:
        config: Of the student or of its teacher.
        architecture: Of the student.
    """
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in MODEL_TYPES:
        return f"it has Llama's blocks, as {', '.join(MODEL_TYPES)} have, not {config.model_type}'s"
    if rope not in ROPE_TYPES:
        return f"llama.cpp's converter forgets the {rope} scaling of the rotary embedding"
    if config.hidden_act != "silu":
        return f"its readers take silu for the activation, which is {config.hidden_act}"
    if _windowed(config) or any(block.window for block in architecture.blocks):
        return "it has no layers with a sliding window"
    if _query_heads(config, architecture) is None:
        return (
            f"it has one number of query heads, which must divide the hidden size of "
            f"{architecture.hidden}, and none holds the heads of all layers in equal groups"
        )
    return ""


def decilm_values(
    raw: Mapping[str, Any], config: PretrainedConfig, layers: list[PaddedLayer]
) -> dict[str, Any]:
    """What config.json of the copy says.

    Args:
        raw: What that of the student says.
        config: Of the student.
        layers: Of the copy.
    """
    return {
        **{name: raw[name] for name in KEPT if name in raw},
        **MODEL_TYPES[config.model_type],
        "architectures": ["DeciLMForCausalLM"],
        "model_type": DECILM_TYPE,
        "auto_map": {"AutoConfig": f"{Path(CODE_FILE).stem}.DeciLMConfig"},
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(layer.target.heads for layer in layers),
        "head_dim": head_dim_of(config),
        "block_configs": [_words(layer.target, config.hidden_size) for layer in layers],
    }


def _words(block: Block, hidden: int) -> dict[str, Any]:
    """One of `block_configs`. All keys that any reader asks for, and no others: mlx-lm refuses
    them."""
    attention, ffn = block.has_attention, block.has_ffn
    return {
        "attention": {
            "no_op": not attention,
            "n_heads_in_group": block.group_heads if attention else None,
            "replace_with_linear": False,
        },
        "ffn": {
            "no_op": not ffn,
            "ffn_mult": 3 * block.ffn / (2 * hidden) if ffn else None,
            "replace_with_linear": False,
        },
    }


def _layers(config: PretrainedConfig, architecture: Architecture) -> Iterator[PaddedLayer]:
    heads = _query_heads(config, architecture)
    assert heads is not None, "asked before"
    first = True
    for index in range(architecture.layers):
        block = architecture.block(index)
        if not block.has_attention and not block.has_ffn:
            continue
        groups = _groups(block, heads) or 0
        if first and not groups:
            groups = 1
        ffn = -(-max(block.ffn, int(groups > 0)) // FFN_MULTIPLE) * FFN_MULTIPLE
        target = Block(heads if groups else 0, groups, ffn)
        yield PaddedLayer(index, block, target)
        first = False


def _query_heads(config: PretrainedConfig, architecture: Architecture) -> int | None:
    """The query heads of every layer of the copy: as many as make up the hidden size where those of
    all layers fit, since llama.cpp takes no others, else the fewest; None where there are none."""
    hidden = architecture.hidden
    counts = [heads for heads in range(1, hidden + 1) if hidden % heads == 0]
    counts.sort(key=lambda heads: heads * head_dim_of(config) != hidden)
    blocks = {architecture.block(index) for index in range(architecture.layers)}
    fine = (n for n in counts if all(_groups(block, n) is not None for block in blocks))
    return next(fine, None)


def _groups(block: Block, heads: int) -> int | None:
    """The fewest KV groups of a copy with so many query heads that those of `block` fit; 0 where it
    has no attention, None where there are none."""
    if not block.has_attention:
        return 0
    counts = range(block.kv_heads, heads + 1)
    return next((n for n in counts if heads % n == 0 and heads // n >= block.group_heads), None)


def _windowed(config: PretrainedConfig) -> bool:
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    return window is not None and (kinds is None or "sliding_attention" in kinds)

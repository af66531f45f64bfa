"""Sizes of layers as config.json has them, in the words of DeciLM and its successors.

Those are the models of Puzzle (arXiv 2411.19146); the words for windows and experts are theirs too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import PruningError
from pruning.families.block import Block


def block_configs(blocks: Sequence[Block], window: int | None) -> list[dict[str, Any]]:
    """What "block_configs" says of these layers, one entry each; `window` is the model's."""
    return [
        {"attention": _attention_config(block, window), "ffn": _ffn_config(block)}
        for block in blocks
    ]


def blocks_of(configs: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """The sizes that `block_configs` wrote. Raises PruningError for anything else."""
    try:
        return tuple(_block(config["attention"], config["ffn"]) for config in configs)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as problem:
        raise PruningError(
            f"block_configs of config.json is damaged ({problem!r}); it must have an attention and "
            "an ffn for every layer, as load_student reads them; copy the student again"
        ) from problem


def _attention_config(block: Block, window: int | None) -> dict[str, Any]:
    if not block.has_attention:
        return {"no_op": True}
    config: dict[str, Any] = {
        "no_op": False,
        "num_attention_heads": block.heads,
        "n_heads_in_group": block.group_heads,
    }
    return config | ({"window_length": window} if block.window else {})


def _ffn_config(block: Block) -> dict[str, Any]:
    if not block.has_ffn:
        return {"no_op": True}
    if block.experts:
        moe = {"num_local_experts": block.experts, "expert_intermediate_dim": block.expert_ffn}
        return {"no_op": False, "moe": moe}
    return {"no_op": False, "intermediate_size": block.ffn}


def _block(attention: Mapping[str, Any], ffn: Mapping[str, Any]) -> Block:
    heads = kv_heads = neurons = experts = each = 0
    if not attention["no_op"]:
        heads = int(attention["num_attention_heads"])
        kv_heads = heads // int(attention["n_heads_in_group"])
    if not ffn["no_op"] and "moe" in ffn:
        experts = int(ffn["moe"]["num_local_experts"])
        each = int(ffn["moe"]["expert_intermediate_dim"])
    elif not ffn["no_op"]:
        neurons = int(ffn["intermediate_size"])
    return Block(heads, kv_heads, neurons, experts, each, int("window_length" in attention))

"""torch-pruning, the best known structural pruner on PyPI, doing the same job.

It traces dependencies through a running model; on grouped-query attention it does not finish, so it
is given a multi-head sibling. Not a dependency of the project: `pip install torch-pruning`.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pruning import Architecture, Checkpoint, architecture_of, family_of
from pruning.families import head_dim_of
from workspace.importance import CalibrationBatches

INSTALLED = find_spec("torch_pruning") is not None
METHODS = ("torch-pruning magnitude", "torch-pruning taylor")


def write_multi_head_sibling(teacher: Checkpoint, output: Path) -> None:
    """The same function as `teacher`, every query head with a KV head of its own."""
    config = teacher.config
    sizes, head_dim = architecture_of(config), head_dim_of(config)
    tensors: dict[str, Tensor] = {}
    for file in teacher.files():
        tensors |= load_file(file)
    for tensor in family_of(config).tensors(config):
        if tensor.axes[0] == "kv_heads":
            heads = tensors[tensor.name].unflatten(0, (sizes.kv_heads, head_dim))
            repeated = heads.repeat_interleave(sizes.heads // sizes.kv_heads, 0)
            tensors[tensor.name] = repeated.flatten(0, 1).contiguous()
    output.mkdir(parents=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    values = config.to_dict() | {"num_key_value_heads": sizes.heads}
    type(config).from_dict(values).save_pretrained(output)


def cut(
    model: Any, shape: Architecture, method: str, batches: CalibrationBatches, seed: int
) -> Any:
    """A multi-head Llama pruned by torch-pruning to the width of `shape`, as a stock model."""
    import torch_pruning as tp

    torch.manual_seed(seed)
    warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
    model.config.use_cache = False  # its trace of a cache does not finish
    config, whole = model.config, architecture_of(model.config)
    first = next(iter(batches))[:1, :16]
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # untied to trace
    heads: dict[Any, int] = {}
    ratios: dict[Any, float] = {}
    for layer in model.model.layers:
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            heads[projection] = whole.heads
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            ratios[projection] = 1 - shape.ffn / whole.ffn
    taylor = method == "torch-pruning taylor"
    importance = tp.importance.GroupTaylorImportance() if taylor else _magnitude(tp)
    if taylor:
        for ids in batches:
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    pruner = tp.pruner.BasePruner(
        model,
        example_inputs=first,
        importance=importance,
        pruning_ratio=1 - shape.hidden / whole.hidden,
        pruning_ratio_dict=ratios,
        ignored_layers=[model.lm_head],
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=1 - shape.heads / whole.heads,
        output_transform=lambda output: output.logits,
    )
    for group in pruner.step(interactive=True):
        group.prune()
    return _stock(model, config, shape)


def _magnitude(tp: Any) -> Any:
    return tp.importance.GroupMagnitudeImportance(p=2)


def _stock(pruned: Any, config: Any, shape: Architecture) -> Any:
    """The pruned tensors in a model that transformers builds; the head tied again."""
    values = config.to_dict() | {
        "use_cache": True,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "head_dim": head_dim_of(config),
    }
    tensors = {name: tensor.detach().clone() for name, tensor in pruned.state_dict().items()}
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    student: Any = AutoModelForCausalLM.from_config(type(config).from_dict(values))
    student.load_state_dict(tensors)
    return student

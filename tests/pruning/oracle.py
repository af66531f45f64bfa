"""What a student must compute, by silencing parts of the teacher in place of cutting them.

Knows nothing of tensors, slices or files: hooks keep the dropped parts from being heard.
"""

import copy
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pruning import Architecture, Block, Ordering, architecture_of, family_of
from pruning.families.table import layer_heads

TUPLES = ("bamba", "falcon_h1")
"""Types whose layers return more than what they add to, and so a tuple."""


@torch.no_grad()
def silenced(
    teacher: Any, ordering: Ordering, architecture: Architecture, kept_layers: list[int]
) -> Any:
    """A copy of `teacher` that computes what the student of `architecture` must."""
    oracle = copy.deepcopy(teacher).eval()
    family, sizes = family_of(oracle.config), architecture_of(oracle.config)
    channels = ordering.hidden[: architecture.hidden]
    for layer in range(sizes.layers):
        module = oracle.get_submodule(f"{family.layers_module}.{layer}")
        if layer not in kept_layers:
            module.forward = _passed_on_with_weights if family.model_type in TUPLES else _passed_on
            continue
        block = architecture.block(kept_layers.index(layer))
        parts = family.parts(oracle.config, layer)
        if block.window:
            _narrow(module, oracle.config.sliding_window)
        if "attention" in parts:
            _silence_attention(module, oracle.config, ordering, block, layer)
        if "ssm" in parts:
            silence_recurrence(module, oracle.config, ordering, architecture, layer)
        if not {"ffn", "experts"}.isdisjoint(parts):
            if not block.has_ffn:
                _leave_out(module.get_submodule(family.ffn_output.rpartition(".")[0]))
            elif "experts" in parts:
                place = layer, kept_layers.index(layer)
                _silence_mixture(module, family, ordering, architecture, place)
            else:
                neurons = ordering.ffn[layer][: block.ffn]
                _silence(module.get_submodule(family.ffn_output), neurons, sizes.ffn)
    for name, module in oracle.named_modules():
        if _norms_hidden(name, module, sizes.hidden):
            _restrict_norm(module, channels)
    dropped = torch.ones(sizes.hidden).bool()
    dropped[channels] = False
    embedding = oracle.get_input_embeddings()
    embedding.register_forward_hook(lambda m, i, output: output.masked_fill(dropped, 0.0))
    return oracle


def _silence_attention(
    module: Any, config: Any, ordering: Ordering, block: Block, layer: int
) -> None:
    family, sizes = family_of(config), architecture_of(config)
    if not block.has_attention:
        _leave_out(module.get_submodule(family.attention_output.rpartition(".")[0]))
        return
    together = layer_heads(config, layer).kv_together
    heads = _kept_heads(ordering, sizes, block, layer, together=together)
    _silence(module.get_submodule(family.attention_output), heads, sizes.heads)
    groups, head_dim = (
        ordering.kv_heads[layer][: block.kv_heads],
        layer_heads(config, layer).head_dim,
    )
    for name, kept in (("q_norm", heads), ("k_norm", groups)):
        norm = getattr(getattr(module, "self_attn", None), name, None)
        if _spans_projection(norm, head_dim):
            _restrict_norm(norm, _rows(kept, head_dim))


def _silence_mixture(
    module: Any, family: Any, ordering: Ordering, architecture: Architecture, place: tuple[int, int]
) -> None:
    """`place` is the layer in the teacher, and in the student."""
    layer, block = place[0], architecture.block(place[1])
    experts = module.get_submodule(family.experts_module)
    whole = module.get_submodule(family.experts_module.rpartition(".")[0])
    router = whole.gate if hasattr(whole, "gate") else whole.router
    if architecture.experts_per_token:
        router.top_k = architecture.experts_per_token
        if family.per_token == "top_k_experts":  # Gemma 4 asks its configuration
            router.config.top_k_experts = architecture.experts_per_token
    _silence_experts(whole, router, experts, ordering, block, layer)
    sizes = ordering.shared_ffn.shape[-1], ordering.expert_latent.shape[-1]
    if sizes[0]:
        kept = ordering.shared_ffn[layer][: architecture.shared_ffn]
        _silence(module.get_submodule(family.shared_output), kept, sizes[0])
    if sizes[1]:
        kept = ordering.expert_latent[layer][: architecture.expert_latent]
        _silence(experts, kept, sizes[1])
        _silence(module.mixer.fc2_latent_proj, kept, sizes[1])


def silence_recurrence(
    module: Any, config: Any, ordering: Ordering, architecture: Architecture, layer: int
) -> None:
    """Have a Mamba-2 layer hear no dropped head, channel, group or state."""
    where, sizes = family_of(config).recurrence, architecture_of(config)
    assert where is not None
    mixer = module.get_submodule(where.output.rpartition(".")[0])
    if where.channels is None:  # a convolution alone
        kept = ordering.ssm_heads[layer][: architecture.ssm_heads]
        _silence(mixer.out_proj, kept, sizes.ssm_heads)
        return
    per_group, width = sizes.ssm_heads // sizes.ssm_groups, sizes.ssm_head_dim
    channels, state = [], []
    for place in range(architecture.ssm_groups):
        group = int(ordering.ssm_groups[layer, place])
        heads = ordering.ssm_heads[layer][place * per_group : (place + 1) * per_group]
        assert set((heads // per_group).tolist()) == {group}
        for head in heads[: architecture.ssm_heads // architecture.ssm_groups].tolist():
            inside = ordering.ssm_head_dim[layer, head][: architecture.ssm_head_dim]
            channels.append(head * width + inside)
        inside = ordering.ssm_state[layer, group][: architecture.ssm_state]
        state.append(group * sizes.ssm_state + inside)
    inner, states = sizes.ssm_heads * width, sizes.ssm_groups * sizes.ssm_state
    # Where a token is written and what is read: after the heads in Mamba-2, before them otherwise.
    for start in (0, states) if where.queries == 0 else (inner, inner + states):
        dropped = torch.ones(states, dtype=torch.bool)
        dropped[torch.cat(state)] = False
        rows = start + torch.nonzero(dropped).flatten()
        mixer.conv1d.weight[rows] = 0
        if mixer.conv1d.bias is not None:
            mixer.conv1d.bias[rows] = 0
    if where.queries == 0:
        kept = ordering.ssm_head_dim[layer, 0][: architecture.ssm_head_dim]
        scale = (sizes.ssm_state / architecture.ssm_state) ** 0.5
        _restrict_head_norm(mixer.norm, kept, scale)
        _silence(mixer.out_proj, torch.cat(channels), inner)
    elif hasattr(mixer.norm, "weight"):
        _restrict_grouped_norm(mixer.norm, torch.cat(channels), architecture.ssm_groups)
    else:
        _silence(mixer.out_proj, torch.cat(channels), inner)


def _restrict_grouped_norm(norm: Any, kept: Tensor, groups: int) -> None:
    """Have a gated norm see the kept channels only, of so many groups, and say zero of the rest."""
    inner = copy.deepcopy(norm)
    inner.weight.data = inner.weight.data[kept]
    inner.group_size = len(kept) // groups
    inner.n_groups = groups

    def forward(x: Tensor, gate: Tensor) -> Tensor:
        said = inner(x[..., kept], gate[..., kept])
        return torch.zeros_like(x, dtype=said.dtype).index_copy(-1, kept, said)

    norm.forward = forward


def _restrict_head_norm(norm: Any, kept: Tensor, scale: float) -> None:
    """Have the norm over each head of a delta net see the kept channels of values only, `scale`
    times as large: queries are over the root of their channels, and a student has fewer."""
    inner = copy.deepcopy(norm)
    inner.weight.data = inner.weight.data[kept]

    def forward(x: Tensor, gate: Tensor) -> Tensor:
        said = inner(scale * x[..., kept], gate[..., kept])
        return torch.zeros_like(x).index_copy(-1, kept, said)

    norm.forward = forward


def _passed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _passed_on_with_weights(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return hidden_states, None


def _leave_out(sub_block: Any) -> None:
    """Have an attention or FFN say zero; the norms that may follow say zero of it too."""

    def hook(_: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    sub_block.register_forward_hook(hook)


def _narrow(layer: Any, window: int) -> None:
    """Have the attention of `layer` see the last `window` tokens."""

    def hook(_: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        places = torch.arange(args[0].shape[1])
        back = places[:, None] - places
        seen = (back >= 0) & (back < window)
        mask = torch.zeros(1, 1, *seen.shape, dtype=args[0].dtype)
        return args, {**kwargs, "attention_mask": mask.masked_fill(~seen, -torch.inf)}

    layer.register_forward_pre_hook(hook, with_kwargs=True)


def _kept_heads(
    ordering: Ordering, sizes: Architecture, student: Block, layer: int, *, together: int
) -> Tensor:
    """The teacher's query heads that the student keeps, in the student's order; of its KV heads so
    many are one `together`."""
    group = sizes.heads // sizes.kv_heads
    kept = []
    for place in range(student.kv_heads):
        start = place * group
        kept += ordering.heads[layer][start : start + student.heads // student.kv_heads].tolist()
    served = {head // (group * together) for head in kept}
    kv_heads = ordering.kv_heads[layer][: student.kv_heads] // together
    assert served == set(kv_heads.tolist())
    return torch.tensor(kept)


def _rows(units: Tensor, width: int) -> Tensor:
    return (units[:, None] * width + torch.arange(width)).flatten()


def _silence(module: Any, kept: Tensor, units: int) -> None:
    """Have `module` read zeros from all but the kept of its `units` inputs."""

    def hook(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heard = torch.zeros(units)
        heard[kept] = 1.0
        width = inputs[0].shape[-1] // units
        return (inputs[0] * heard.repeat_interleave(width), *inputs[1:])

    module.register_forward_pre_hook(hook)


def _norms_hidden(name: str, module: Any, hidden: int) -> bool:
    leaf = name.rsplit(".", 1)[-1]
    is_norm = "norm" in leaf or leaf.startswith("ln_")
    of_mixers = ("mixer.norm", "mamba.norm", "attn.norm")
    inside = leaf in ("q_norm", "k_norm", "v_norm", "qk_norm") or name.endswith(of_mixers)
    weight = getattr(module, "weight", None)  # some norms have none
    return is_norm and not inside and (weight is None or weight.shape == (hidden,))


def _spans_projection(norm: Any, head_dim: int) -> bool:
    """Whether queries or keys are normed over all heads together."""
    weight = getattr(norm, "weight", None)
    return weight is not None and weight.dim() == 1 and len(weight) != head_dim


def _restrict_norm(norm: Any, kept: Tensor) -> None:
    """Have `norm` see the kept channels only, and say zero for the rest."""
    inner = copy.deepcopy(norm)
    for name, parameter in list(inner.named_parameters()):
        setattr(inner, name, torch.nn.Parameter(parameter[kept]))
    if hasattr(inner, "normalized_shape"):
        inner.normalized_shape = (len(kept),)

    def forward(x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_copy(-1, kept, inner(x[..., kept]))

    norm.forward = forward


NEVER = -1e9
"""Score of an expert that no token is sent to."""


def _silence_experts(
    whole: Any, router: Any, experts: Any, ordering: Ordering, student: Block, layer: int
) -> None:
    """Have the router, whatever it makes of its logits, send no token to a dropped expert."""
    groups = getattr(router, "num_group", 1)
    inside = ordering.experts[layer].unflatten(0, (groups, -1))
    kept = inside[:, : student.experts // groups].flatten()
    neurons = ordering.expert_ffn.shape[-1]
    for expert in range(experts.num_experts):
        dropped = ordering.expert_ffn[layer, expert][student.expert_ffn :]
        down = experts.down_proj[expert]
        down = down if down.shape[-1] == neurons else down.T
        down[:, dropped] = 0
    dropped = torch.ones(experts.num_experts, dtype=torch.bool)
    dropped[kept] = False
    holders: tuple[Any, ...] = (router, getattr(router, "moe_statics", None), whole)
    for holder in holders:
        for name in ("e_score_correction_bias", "expert_bias"):
            if hasattr(holder, name):
                getattr(holder, name).data[..., dropped] = NEVER
    own, linear = router.forward, nn.functional.linear

    def masked(*inputs: Any) -> Tensor:
        return linear(*inputs).masked_fill(dropped, NEVER)

    def forward(*inputs: Any) -> Any:
        with patch("torch.nn.functional.linear", masked):
            return own(*inputs)

    router.forward = forward

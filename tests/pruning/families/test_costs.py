"""Costs by formula are those of the models themselves."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache

from pruning import (
    Architecture,
    ArchitectureGrid,
    Workload,
    architecture_of,
    family_of,
    is_legal,
    parameter_count,
    student_config,
)
from pruning.families import experts_per_token, head_sizes
from pruning.families.costs import (
    active_parameters,
    forward_flops,
    kv_cache_bytes,
    memory_bytes,
    non_embedding_parameters,
    state_bytes,
)
from pruning.families.table import layer_heads
from tests.pruning.hybrids import HYBRIDS
from tests.pruning.models import (
    ANGLES,
    CONFIGS,
    MIXED,
    VARIANTS,
    build_config,
    random_ordering,
    smaller_than,
    token_ids,
)

MIXTURES = [variant for variant in VARIANTS if architecture_of(build_config(variant)).experts]
COUNTED = [variant for variant in VARIANTS if variant not in {*MIXTURES, *HYBRIDS}]
"""Variants of which torch counts all operations as they are said to be."""
CONTEXT = 9


def shapes(variant: str) -> list[tuple[Architecture, list[int]]]:
    """(architecture, layers kept): the whole teacher, and a student smaller on every axis."""
    config = build_config(variant)
    whole = architecture_of(config)
    smaller = smaller_than(config)
    kept = random_ordering(config).kept_layers(smaller.layers)
    return [(whole, list(range(whole.layers))), (smaller, kept)]


def build(variant: str, architecture: Architecture, kept: list[int]) -> Any:
    config = student_config(build_config(variant), architecture, kept)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def tables(model: Any) -> set[int]:
    """The embeddings and the output head, by identity."""
    found = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return {id(weight) for weight in [*found, *model.get_output_embeddings().parameters()]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_model(variant: str) -> None:
    config = build_config(variant)
    for architecture, kept in shapes(variant):
        model = build(variant, architecture, kept)
        left_out = tables(model)
        inner = sum(p.numel() for p in model.parameters() if id(p) not in left_out)
        assert non_embedding_parameters(config, architecture, kept=kept) == inner
        of_experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
        top = architecture.experts_per_token or experts_per_token(config)
        idle = of_experts * max(0, architecture.experts - top) // max(1, architecture.experts)
        active = model.num_parameters() - idle
        assert active_parameters(config, architecture, kept=kept) == active
        assert (active == parameter_count(config, architecture, kept=kept)) == (
            variant not in MIXTURES
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_kv_cache_is_that_of_the_model(variant: str) -> None:
    config = build_config(variant)
    for architecture, kept in shapes(variant):
        model = build(variant, architecture, kept)
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=token_ids(3, CONTEXT), past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers
        tensors = [
            t
            for layer in layers
            if getattr(layer, "keys", None) is not None
            for t in (layer.keys, layer.values)
        ]
        # a full window waits for the next token with one place less than it attends to
        held = sum(t.numel() + t[:, :, 0].numel() * (t.shape[2] < CONTEXT) for t in tensors)
        counted = kv_cache_bytes(config, architecture, Workload(3, CONTEXT, 2), kept=kept)
        assert counted == 2 * held
        weights = 2 * model.num_parameters()
        states = state_bytes(config, architecture, Workload(3, CONTEXT, 2), kept=kept)
        assert states == _states_held(layers)
        memory = memory_bytes(config, architecture, Workload(3, CONTEXT, 2), kept=kept)
        assert memory == weights + counted + states
        assert kv_cache_bytes(config, architecture, Workload(3, CONTEXT, 2)) >= counted


def _states_held(layers: list[Any]) -> int:
    """Bytes of recurrent states in fp32, and of the tokens that convolutions still need in two."""
    held = 0
    for layer in layers:
        for state in getattr(layer, "recurrent_states", {}).values():
            held += 0 if state is None else 4 * state.numel()  # a convolution has none
        for state in getattr(layer, "conv_states", {}).values():
            if state is not None:  # a layer without a mixer, before transformers 5.23
                held += 2 * state.numel() * (state.shape[-1] - 1) // state.shape[-1]
    return held


@pytest.mark.parametrize("variant", COUNTED)
def test_flops_are_those_that_torch_counts(variant: str) -> None:
    """Decoding token by token does for every token what the formula takes the mean of."""
    config = build_config(variant)
    architecture, kept = shapes(variant)[-1]
    model = build(variant, architecture, kept)
    cache = DynamicCache(config=model.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for token in token_ids(1, CONTEXT).T:
            model(input_ids=token[None], past_key_values=cache, use_cache=True)
    counted = counter.get_total_flops()
    for module, flops in counter.get_flop_counts().items():
        if ANGLES.search(module):
            counted -= sum(flops.values())
    expected = CONTEXT * forward_flops(config, architecture, CONTEXT, kept=kept)
    assert counted == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", sorted({*MIXTURES, *HYBRIDS}))
def test_flops_of_experts_and_states_are_those_of_the_ones_in_use(variant: str) -> None:
    wide = {"sliding_window": 64, "attention_chunk_size": 64}
    wide = {name: size for name, size in wide.items() if name in CONFIGS[variant][1]}
    config = build_config(variant, **wide)
    architecture = architecture_of(config)
    model = build(variant, architecture, list(range(architecture.layers)))
    left_out = tables(model)
    weights = model.get_output_embeddings().weight.numel()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or id(parameter) in left_out or name.endswith("proj_bias"):
            continue
        share = experts_per_token(config) / architecture.experts if ".experts." in name else 1
        weights += parameter.numel() * share
    parts = [family_of(config).parts(config, layer) for layer in range(architecture.layers)]
    attending, recurrent = (sum(part in kind for kind in parts) for part in ("attention", "ssm"))
    head = head_sizes(config)
    channels = attending * (head.keys + head.values)
    if family_of(config).layer_heads:
        channels = sum(2 * layer_heads(config, n).head_dim for n in range(architecture.layers))
    attention = 2 * architecture.heads * channels * (CONTEXT + 1) / 2
    state = architecture.ssm_heads * architecture.ssm_head_dim * architecture.ssm_state
    flops = forward_flops(config, architecture, CONTEXT)
    recurrence = family_of(config).recurrence
    each = recurrence.state_flops if recurrence else 0
    assert flops == pytest.approx(2 * weights + attention + each * recurrent * state)


def test_arrays_give_what_single_architectures_give() -> None:
    config = build_config("gemma2")
    sizes = [architecture_of(config), smaller_than(config), Architecture(1, 24, 8, 2, 9)]
    costs: tuple[Callable[[Any, Any], Any], ...] = (
        non_embedding_parameters,
        active_parameters,
        lambda c, a: kv_cache_bytes(c, a, Workload(3, CONTEXT, 2)),
        lambda c, a: memory_bytes(c, a, Workload(3, CONTEXT, 2)),
        lambda c, a: forward_flops(c, a, CONTEXT),
    )
    for cost in costs:
        together = cost(config, ArchitectureGrid.of(sizes))
        assert together.tolist() == [cost(config, a) for a in sizes]


def test_without_the_kept_layers_the_cache_is_that_of_the_layers_that_hold_most() -> None:
    config = build_config("gemma2")  # windows of 6 in the first and the last of three layers
    one = Architecture(1, 24, 8, 2, 9)
    assert kv_cache_bytes(config, one, Workload(1, CONTEXT, 2)) == 2 * 2 * 8 * CONTEXT * 2
    assert kv_cache_bytes(config, one, Workload(1, CONTEXT, 2), kept=[0]) == 2 * 2 * 8 * 6 * 2
    assert forward_flops(config, one, 40) > forward_flops(config, one, 40, kept=[0])


@pytest.mark.parametrize("variant", MIXED)
def test_without_the_kept_layers_each_kind_keeps_its_share(variant: str) -> None:
    config = build_config(variant)
    for depth in range(1, config.num_hidden_layers + 1):
        shape = replace(smaller_than(config), layers=depth)
        if not is_legal(config, shape):
            continue
        kept = random_ordering(config, depth).kept_layers(depth)
        for cost in (active_parameters, non_embedding_parameters):
            assert cost(config, shape) == cost(config, shape, kept=kept)
        flops = forward_flops(config, shape, CONTEXT, kept=kept)
        assert forward_flops(config, shape, CONTEXT) == pytest.approx(flops)

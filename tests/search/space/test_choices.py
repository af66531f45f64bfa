"""Sizes that kernels, quantised formats and engines take: the choices, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import (
    AutoConfig,
    BambaConfig,
    DeepseekV3Config,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    Qwen2Config,
    SmolLM3Config,
)

from common.errors import SearchError
from common.fingerprint import differences
from pruning import PruningError, active_parameters, architecture_of
from search.config.budget import BudgetConfig
from search.config.space import SpaceConfig
from search.space.budget import Budget
from search.space.choices import Narrowing, choices_of
from search.space.costs import CostModel
from search.space.space import Space
from tests.driver import TEACHER

REAL: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}


def chosen(config: Any, device: str = "cpu", serve_with: tuple[str, ...] = (), **given: Any) -> Any:
    return choices_of(
        config, SpaceConfig(**given), narrowing=Narrowing(serve_with=serve_with, device=device)
    )


def served_space(config: Any, *engines: str, share: float = 0.6, **given: Any) -> Space:
    limits = BudgetConfig(parameters=share, tolerance=0.3)
    costs = CostModel.of(config, limits, block=32)
    narrowing = Narrowing(serve_with=engines)
    return Space.build(
        config,
        SpaceConfig(**given),
        budget=Budget.of(limits, costs),
        costs=costs,
        narrowing=narrowing,
    )


def test_the_demos_choices_on_a_cpu_are_those_of_its_table() -> None:
    found = chosen(AutoConfig.from_pretrained(TEACHER))
    assert found["hidden"] == list(range(64, 193, 8))
    assert found["ffn"] == list(range(160, 641, 16))


@pytest.mark.parametrize(
    ("hidden", "step"),
    [(4096, 128), (2048, 64), (1024, 64), (768, 64), (576, 32), (192, 16), (96, 4)],
)
def test_on_a_gpu_sizes_are_what_kernels_are_fast_with(hidden: int, step: int) -> None:
    config = LlamaConfig(**{**REAL, "hidden_size": hidden})
    choices = chosen(config, "cuda")["hidden"]
    assert set(np.diff(choices)) == {step}
    assert len(choices) >= 8 and choices[-1] == hidden
    given = list(range(hidden // 2, hidden + 1, 2))
    assert chosen(config, "cuda", hidden=given)["hidden"] == given


@pytest.mark.parametrize("multiple", [96, 256, 1000])
def test_default_sizes_are_multiples_where_asked_for(multiple: int) -> None:
    choices = chosen(LlamaConfig(**REAL), multiple_of=multiple)
    for axis in ("hidden", "ffn"):
        assert all(size % multiple == 0 for size in choices[axis])
        assert len(choices[axis]) > 1
    assert choices["heads"] == chosen(LlamaConfig(**REAL))["heads"]
    own = chosen(LlamaConfig(**REAL), multiple_of={"ffn": multiple, "heads": 16})
    assert own["hidden"] == chosen(LlamaConfig(**REAL))["hidden"]
    assert own["ffn"] == choices["ffn"] and own["heads"] == [16, 32]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"multiple_of": 64, "hidden": [1024, 1000]},
            r"hidden has 1000, which is no multiple of the",
        ),
        (
            {"multiple_of": {"ffn": 256}, "ffn": [64, 512, 64]},
            "ffn has 64, which is no multiple of",
        ),
        ({"multiple_of": 4096}, "has 4096 for hidden, of which the teacher has 2048"),
        ({"multiple_of": {"heads": 20}}, "has 20 for heads, of which the teacher has 32"),
    ],
)
def test_sizes_that_contradict_the_multiple_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SearchError, match=said):
        chosen(LlamaConfig(**REAL), **given)


@pytest.mark.parametrize(
    ("multiple", "said"),
    [
        (0, "has 0 for hidden; it must be at least 1"),
        ({"depth": 2}, "names 'depth'; it must be one"),
    ],
)
def test_multiples_that_cannot_be_are_refused(multiple: Any, said: str) -> None:
    with pytest.raises(SearchError, match=said):
        SpaceConfig(multiple_of=multiple)


def test_engines_that_read_no_head_dim_get_hidden_sizes_of_whole_heads() -> None:
    config = Qwen2Config(**{**REAL, "num_hidden_layers": 4})
    space = served_space(config, "llama.cpp", "mlx")
    assert all(a.hidden == 64 * a.heads for a in space.feasible)
    assert len({a.hidden for a in space.feasible}) >= 2 and len({a.ffn for a in space.feasible}) > 8
    assert all(a.ffn % 64 == 0 for a in space.feasible)
    assert all(space.served.holds(a) for a in space.feasible)
    assert space.not_served > 0
    assert any(
        f"{space.not_served:,} architectures of these choices are left out" in line
        for line in space.describe()
    )


def test_engines_that_derive_the_ffn_get_it_from_the_hidden_size() -> None:
    config = GPT2Config(n_embd=256, n_head=8, n_layer=6, vocab_size=101)
    space = served_space(config, "llama.cpp")
    assert {(a.hidden, a.ffn) for a in space.feasible} >= {(192, 768), (224, 896)}
    assert all(a.ffn == 4 * a.hidden == 128 * a.heads for a in space.feasible)


def test_heads_that_go_with_the_hidden_size_are_offered_together() -> None:
    mamba = {"mamba_n_heads": 64, "mamba_d_head": 64, "mamba_n_groups": 1}
    bamba = BambaConfig(**{**REAL, **mamba, "attn_layer_indices": [3, 9]})
    found = chosen(bamba)
    assert found["ssm_heads"] == [size * 2 // 64 for size in found["hidden"]]
    assert chosen(bamba, ssm_heads=[48, 64])["hidden"] == [1536, 2048]
    assert chosen(bamba, hidden=[1024, 1552])["ssm_heads"] == [32]
    sizes = served_space(bamba, ffn=[8192], heads=[32], layers=[16]).feasible
    assert len(sizes) > 1 and all(2 * a.hidden == 64 * a.ssm_heads for a in sizes)
    lfm2 = Lfm2Config(**REAL, layer_types=["conv", "full_attention"] * 8)
    sizes = served_space(lfm2, ffn=[2048], heads=[32], layers=[16]).feasible
    assert len(sizes) > 1 and all(a.ssm_heads == a.hidden for a in sizes)


def test_mixtures_are_offered_experts_that_their_rules_allow() -> None:
    experts: dict[str, Any] = {
        "n_routed_experts": 16,
        "moe_intermediate_size": 512,
        "num_experts_per_tok": 4,
    }
    groups: dict[str, Any] = {
        "n_group": 4,
        "topk_group": 2,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
    }
    deepseek = DeepseekV3Config(**{**REAL, "num_key_value_heads": 32}, **experts, **groups)
    given: dict[str, Any] = {"layers": [16], "heads": [32], "hidden": [2048], "ffn": [8192]}
    space = served_space(deepseek, experts_per_token=[2, 4], **given)
    found = list(space.feasible)
    assert {a.experts for a in found} <= {8, 12, 16}
    assert len({a.experts for a in found}) > 1
    assert all(a.shared_ffn % a.expert_ffn == 0 for a in found)
    assert len({a.shared_ffn // a.expert_ffn for a in found}) > 1
    assert {a.experts_per_token for a in found} == {2, 4}
    whole = architecture_of(deepseek)
    used = [active_parameters(deepseek, replace(whole, experts_per_token=n)) for n in (2, 4)]
    each = 3 * 512 * 2048  # of the 15 layers with experts
    assert used[1] - used[0] == 15 * 2 * each
    gpt_oss = GptOssConfig(**REAL, num_local_experts=8, num_experts_per_tok=4)
    del given["ffn"]
    found = list(served_space(gpt_oss, experts_per_token=[1, 2], **given).feasible)
    assert {a.experts_per_token for a in found} == {1, 2}
    assert {a.experts for a in found} >= {4, 5}


def test_a_space_without_engines_is_what_it_was(space_of: Callable[..., Space]) -> None:
    config = Qwen2Config(**{**REAL, "num_hidden_layers": 4})
    space = space_of(config)
    assert space.not_served == 0
    assert not any("left out" in line or "note" in line for line in space.describe())


def test_depths_that_no_choice_of_layers_serves_are_left_out() -> None:
    config = SmolLM3Config(
        **{**REAL, "num_hidden_layers": 8}, pad_token_id=0, no_rope_layers=[1, 1, 0, 1, 0, 1, 1, 1]
    )
    space = served_space(config, "llama.cpp", share=0.9, hidden=[2048], ffn=[4096, 8192])
    assert max(a.layers for a in space.feasible) == 7
    assert any("keep the engines' pattern" in line for line in space.describe())
    with pytest.raises(SearchError, match="leaves nothing of --space; .* every fourth layer"):
        served_space(config, "llama.cpp", share=0.9, layers=[8])


def test_nothing_left_says_which_rule_and_which_engine() -> None:
    config = Qwen2Config(**REAL)
    with pytest.raises(
        SearchError, match=r"--serve_with leaves nothing of --space; .* hidden = heads"
    ):
        served_space(config, "mlx", hidden=[1984], heads=[16, 32])
    with pytest.raises(PruningError, match="has 'ollama'; it must be any of"):
        served_space(config, "ollama")


def test_a_study_of_an_earlier_version_is_one_without_engines() -> None:
    assert not differences({"space": 1}, {"space": 1, "serve_with": None})
    assert differences({"space": 1}, {"space": 1, "serve_with": ["mlx"]})


def test_the_teacher_is_among_the_choices_where_it_is_a_multiple() -> None:
    config = LlamaConfig(**REAL)
    whole = architecture_of(config)
    for given in (SpaceConfig(), SpaceConfig(multiple_of=64)):
        found = choices_of(config, given, narrowing=Narrowing(serve_with=("llama.cpp",)))
        assert all(found[axis][-1] == getattr(whole, axis) for axis in ("layers", "hidden", "ffn"))

"""Counting parameters and saying which shapes are legal."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, PretrainedConfig
from transformers.initialization import no_init_weights

from pruning import (
    Architecture,
    ArchitectureGrid,
    PruningError,
    architecture_of,
    check_architecture,
    family_of,
    is_legal,
    parameter_count,
    student_config,
)
from pruning.families import check_cuttable
from pruning.families.table.common import EXPERTS_ALIGNED, HEADS_DIVIDE_HIDDEN
from tests.pruning.models import (
    MIXED,
    VARIANTS,
    build_config,
    going_together,
    hidden_follows_heads,
    random_ordering,
)


def random_legal(config: PretrainedConfig, count: int) -> list[Architecture]:
    """Drawn from all shapes by rejection, so that the test does not construct what it checks."""
    generator = random.Random(0)
    teacher = architecture_of(config)
    found: list[Architecture] = []
    while len(found) < count:
        sizes = {a: generator.randint(min(1, n), n) for a, n in teacher.to_dict().items()}
        if teacher.heads == teacher.kv_heads:
            sizes["kv_heads"] = sizes["heads"]
        if hidden_follows_heads(config):
            sizes["hidden"] = sizes["heads"] * 8
        if teacher.experts:  # most numbers are no multiple of 8
            for axis in ("hidden", "expert_ffn"):
                sizes[axis] = 8 * generator.randint(1, getattr(teacher, axis) // 8)
            if family_of(config).hidden_follows is not None:
                sizes["ssm_heads"] = 8 * generator.randint(1, teacher.ssm_heads // 8)
        if teacher.shared_ffn and teacher.shared_ffn % teacher.expert_ffn == 0:
            most = teacher.shared_ffn // sizes["expert_ffn"]
            sizes["shared_ffn"] = sizes["expert_ffn"] * generator.randint(1, most)
        candidate = going_together(config, Architecture.from_dict(sizes))
        if is_legal(config, candidate):
            found.append(candidate)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count_is_that_of_the_instantiated_model(variant: str) -> None:
    config = build_config(variant)
    architectures = random_legal(config, 12)
    generator = random.Random(1)
    whole = range(config.num_hidden_layers)
    kept = [sorted(generator.sample(whole, a.layers)) for a in architectures]
    if architectures[0].ssm_heads or family_of(config).layer_heads:  # not any layers
        kept = [random_ordering(config).kept_layers(a.layers) for a in architectures]
    counted = []
    for architecture, layers in zip(architectures, kept, strict=True):
        with no_init_weights(), torch.device("meta"):
            student = student_config(config, architecture, layers)
            model = AutoModelForCausalLM.from_config(student)
        model.tie_weights()
        counted.append(sum(p.numel() for p in model.parameters()))
    pairs = zip(architectures, kept, strict=True)
    assert [parameter_count(config, a, kept=layers) for a, layers in pairs] == counted
    if variant not in MIXED:  # there the layers that are kept decide
        assert parameter_count(config, ArchitectureGrid.of(architectures)).tolist() == counted


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_legal_agrees_with_the_configuration_class(variant: str) -> None:
    config = build_config(variant)
    teacher, tied = architecture_of(config), hidden_follows_heads(config)
    tied_to_mixer = family_of(config).hidden_follows is not None
    legal = {}
    for hidden in range(1, teacher.hidden + 1):
        candidate = replace(teacher, hidden=hidden)
        try:
            student_config(config, candidate, list(range(teacher.layers)))
            accepted = True
        except Exception:
            accepted = False
        legal[hidden] = bool(is_legal(config, candidate))
        # Where head_dim follows the hidden size, and for experts, fewer sizes can be cut.
        narrower = teacher.experts or tied_to_mixer or (tied and variant != "phi3-long")
        assert legal[hidden] == accepted or (narrower and not legal[hidden]), candidate
    rules = {constraint.rule for constraint in family_of(config).constraints}
    narrowed = HEADS_DIVIDE_HIDDEN.rule in rules
    narrowed |= teacher.experts > 0 and EXPERTS_ALIGNED.rule in rules
    assert all(legal.values()) == (not tied and not narrowed and not tied_to_mixer)


@pytest.mark.parametrize(
    ("variant", "change", "legal"),
    [
        ("llama-gqa-tied", {}, True),
        ("llama-gqa-tied", {"heads": 6}, True),
        ("llama-gqa-tied", {"heads": 5}, False),
        ("llama-gqa-tied", {"heads": 6, "kv_heads": 2}, True),
        ("llama-gqa-tied", {"heads": 3, "kv_heads": 1}, True),
        ("llama-gqa-tied", {"heads": 6, "kv_heads": 1}, False),
        ("llama-gqa-tied", {"kv_heads": 0}, False),
        ("llama-gqa-tied", {"hidden": 44}, False),
        ("llama-gqa-tied", {"hidden": 108}, False),
        ("llama-gqa-tied", {"ffn": 41}, False),
        ("llama-gqa-tied", {"layers": 4}, False),
        ("llama-gqa-tied", {"heads": 18}, False),
        ("llama-gqa-tied", {"heads": 0}, False),
        ("llama-gqa-tied", {"hidden": 0}, False),
        ("llama-gqa-tied", {"layers": 0}, False),
        ("llama-gqa-tied", {"ffn": -1}, False),
        ("llama-gqa-tied", {"experts": 1}, False),
        ("llama-mha", {"heads": 5, "kv_heads": 5}, True),
        ("llama-mha", {"heads": 3}, False),
        ("llama-mha", {"kv_heads": 3}, False),
        ("mistral-gqa", {"hidden": 49}, True),
        ("gpt2", {"heads": 5, "kv_heads": 5, "hidden": 40}, True),
        ("gpt2", {"heads": 5, "kv_heads": 5}, False),
        ("gpt2", {"hidden": 40}, False),
        ("mixtral", {"experts": 2}, True),
        ("mixtral", {"experts": 1}, False),
        ("mixtral", {"expert_ffn": 8}, True),
        ("mixtral", {"expert_ffn": 0}, False),
        ("mixtral", {"ffn": 8}, False),
    ],
)
def test_is_legal_alone_and_elementwise(variant: str, change: dict[str, Any], legal: bool) -> None:
    config = build_config(variant)
    candidate = replace(architecture_of(config), **change)
    assert bool(is_legal(config, candidate)) is legal
    both = ArchitectureGrid.of([architecture_of(config), candidate])
    assert is_legal(config, both).tolist() == [True, legal]


def test_a_type_of_which_no_row_can_be_inferred_is_named_with_the_reason() -> None:
    for ask in (family_of, architecture_of):
        with pytest.raises(PruningError, match="'mamba' have no row") as problem:
            ask(MambaConfig())
        assert "no projection of its layers was found that reads heads" in str(problem.value)
        assert "docs/families.md" in str(problem.value)


def test_quantised_model_is_refused() -> None:
    with pytest.raises(PruningError, match="dequantise"):
        family_of(LlamaConfig.from_dict({"quantization_config": {"quant_method": "gptq"}}))


def test_an_architecture_reads_back_and_shows_its_experts() -> None:
    for variant, shown in {
        "llama-mha": "L3 H60 A6/6 F40",
        "mixtral": "L3 H48 A9/3 E5x40",
        "qwen3-moe-mixed": "L3 H48 A9/3 F40 E4x24",
    }.items():
        architecture = architecture_of(build_config(variant))
        assert str(architecture) == shown
        assert Architecture.from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize(
    ("variant", "changes", "said"),
    [
        ("nemotron-h", {"hybrid_override_pattern": "M-M-"}, "none of the 4 layers .* attention"),
        ("bamba", {"attn_layer_indices": None}, "none of the 3 layers of the bamba has attention"),
        ("granite-hybrid", {"layer_types": ["linear_attention"] * 3}, "has attention by the"),
        ("qwen3-5", {"linear_num_key_heads": 4}, "6 ssm_heads and 4 ssm_groups, which do not"),
        ("falcon-h1", {"num_key_value_heads": 2}, "9 heads and 2 kv_heads, which do not divide"),
        ("nemotron-h", {"n_groups": 0}, "config.json says 0 ssm_groups, and layers that have them"),
        ("nemotron-h-moe", {"n_routed_experts": 0}, "says 0 experts, and layers that have them"),
        ("nemotron-h-moe", {"num_experts_per_tok": 0}, "says 0 num_experts_per_tok"),
    ],
)
def test_hybrids_that_cannot_be_cut_are_refused_in_a_sentence(
    variant: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PruningError, match=said):
        check_cuttable(build_config(variant, **changes))


@pytest.mark.parametrize(
    ("variant", "sizes", "said"),
    [
        ("bamba", {"ssm_heads": 10}, "mamba_expand times the hidden size"),
        ("lfm2", {"hidden": 40}, r"as many channels \(ssm_heads\) as the hidden size has"),
        ("falcon-h1", {"ssm_heads": 5}, "ssm_heads must be a multiple of ssm_groups"),
        ("falcon-h1", {"ssm_groups": 1}, "ssm_heads must be at most 3 times ssm_groups"),
        ("qwen3-next", {"hidden": 44}, "a hidden size and an expert FFN that 8 divides"),
        ("nemotron-h", {"experts_per_token": 1}, "experts_per_token must be 0, as in the teacher"),
        (
            "nemotron-h-moe",
            {"experts": 2, "experts_per_token": 1},
            "experts must be at least 4, since the router looks at the two best of every group",
        ),
        (
            "glm4-moe",
            {"experts": 1, "experts_per_token": 1},
            r"of every group of them \(it has 1\)",
        ),
        ("nemotron-h-moe", {"experts": 5}, "a multiple of 2, the groups that they are routed in"),
        ("gemma4-moe", {"kv_heads": 1, "heads": 3}, "whole ones in layers without a window"),
        ("gemma4-shared", {"layers": 2}, "layers must be at least 3, those of all kinds"),
    ],
)
def test_sizes_of_hybrids_that_do_not_fit_are_refused_in_a_sentence(
    variant: str, sizes: dict[str, Any], said: str
) -> None:
    config = build_config(variant)
    with pytest.raises(PruningError, match=said):
        check_architecture(config, replace(architecture_of(config), **sizes))

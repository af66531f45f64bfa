"""Counting parameters and saying which shapes are legal."""

import random
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig
from transformers.initialization import no_init_weights

from pruning import (
    FAMILIES,
    Architecture,
    PruningError,
    architecture_of,
    family_of,
    is_legal,
    parameter_count,
    student_config,
)
from tests.pruning.models import VARIANTS, build_config


def random_legal(config: PretrainedConfig, count: int) -> list[Architecture]:
    """Drawn from all shapes by rejection, so that the test does not construct what it checks."""
    generator = random.Random(0)
    teacher = architecture_of(config)
    found: list[Architecture] = []
    while len(found) < count:
        sizes = {axis: generator.randint(1, size) for axis, size in asdict(teacher).items()}
        if teacher.heads == teacher.kv_heads:
            sizes["kv_heads"] = sizes["heads"]
        candidate = Architecture(**sizes)
        if is_legal(config, candidate):
            found.append(candidate)
    return found


def stacked(architectures: list[Architecture]) -> Any:
    fields: dict[str, Any] = {
        axis: np.array([getattr(a, axis) for a in architectures])
        for axis in asdict(architectures[0])
    }
    return Architecture(**fields)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count_is_that_of_the_instantiated_model(variant: str) -> None:
    config = build_config(variant)
    architectures = random_legal(config, 50)
    counted = []
    for architecture in architectures:
        kept = list(range(architecture.layers))
        with no_init_weights():
            student = student_config(config, architecture, kept)
            model = AutoModelForCausalLM.from_config(student)
        model.tie_weights()
        counted.append(sum(p.numel() for p in model.parameters()))
    assert [parameter_count(config, a) for a in architectures] == counted
    assert parameter_count(config, stacked(architectures)).tolist() == counted


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_legal_agrees_with_the_configuration_class(variant: str) -> None:
    config = build_config(variant)
    teacher = architecture_of(config)
    legal = {}
    for hidden in range(1, teacher.hidden + 1):
        candidate = replace(teacher, hidden=hidden)
        try:
            student_config(config, candidate, list(range(teacher.layers)))
            accepted = True
        except Exception:
            accepted = False
        legal[hidden] = bool(is_legal(config, candidate))
        assert legal[hidden] == accepted, candidate
    assert all(legal.values()) == (config.model_type == "mistral")


@pytest.mark.parametrize(
    ("variant", "change", "legal"),
    [
        ("llama-gqa-tied", {}, True),
        ("llama-gqa-tied", {"heads": 6}, True),
        ("llama-gqa-tied", {"heads": 5}, False),
        ("llama-gqa-tied", {"heads": 4, "kv_heads": 1}, False),
        ("llama-gqa-tied", {"hidden": 44}, False),
        ("llama-gqa-tied", {"hidden": 96}, False),
        ("llama-gqa-tied", {"ffn": 41}, False),
        ("llama-gqa-tied", {"layers": 4}, False),
        ("llama-gqa-tied", {"heads": 16}, False),
        ("llama-gqa-tied", {"heads": 0}, False),
        ("llama-gqa-tied", {"hidden": 0}, False),
        ("llama-gqa-tied", {"layers": 0}, False),
        ("llama-gqa-tied", {"ffn": -1}, False),
        ("llama-mha", {"heads": 5, "kv_heads": 5}, True),
        ("llama-mha", {"heads": 3}, False),
        ("llama-mha", {"kv_heads": 3}, False),
        ("mistral-gqa", {"hidden": 49}, True),
    ],
)
def test_is_legal_alone_and_elementwise(variant: str, change: dict, legal: bool) -> None:
    config = build_config(variant)
    candidate = replace(architecture_of(config), **change)
    assert bool(is_legal(config, candidate)) is legal
    both = stacked([architecture_of(config), candidate])
    assert is_legal(config, both).tolist() == [True, legal]


def test_unsupported_type_is_named_with_the_supported_ones() -> None:
    for ask in (family_of, architecture_of):
        with pytest.raises(PruningError, match="gpt2") as problem:
            ask(GPT2Config())
        assert all(name in str(problem.value) for name in FAMILIES)


def test_quantised_model_is_refused() -> None:
    with pytest.raises(PruningError, match="quantised"):
        family_of(LlamaConfig.from_dict({"quantization_config": {"quant_method": "gptq"}}))

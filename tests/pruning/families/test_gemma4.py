"""Gemma 4: configurations in the words of released files, and those that are refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pruning import (
    Architecture,
    PruningError,
    architecture_of,
    check_architecture,
    student_config,
)
from pruning.families.config_file import student_values
from pruning.families.table import layer_heads
from pruning.slicing.compensation import check_options
from pruning.slicing.selection import Slice
from tests.pruning.models import CONFIGS, build_config


def test_a_released_configuration_is_cut_in_its_own_words() -> None:
    kind, values = CONFIGS["gemma4-moe"]
    raw = {"model_type": "gemma4_text", **values}
    config = kind.from_dict(raw)  # type: ignore[attr-defined]
    shape = replace(architecture_of(config), layers=3, heads=6, kv_heads=2)
    written = student_values(raw, student_config(config, shape, [0, 2, 3]))
    assert (written["num_key_value_heads"], written["num_global_key_value_heads"]) == (2, 1)
    assert written["global_head_dim"] == 16
    assert written["per_layer_config"] == {"2": {"head_dim": 16, "num_key_value_heads": 1}}
    assert written["layer_types"][-2:] == ["sliding_attention", "full_attention"]
    assert "rope_theta" not in written and "rope_scaling" not in written
    read = kind.from_dict(json.loads(json.dumps(written)))  # type: ignore[attr-defined]
    assert architecture_of(read) == shape
    assert [layer_heads(read, layer).kv_together for layer in range(3)] == [1, 1, 2]


def test_layers_that_read_others_keep_these_and_hold_no_cache() -> None:
    config = build_config("gemma4-shared")
    assert [layer_heads(config, n).kv_source for n in range(6)] == [None, None, None, 1, 1, 2]
    shape = replace(architecture_of(config), layers=4)
    with pytest.raises(PruningError, match=r"every student of this gemma4_text keeps \[1, 2, 5\]"):
        Slice.of(config, shape, kept_layers=[0, 2, 4, 5])
    student = student_config(config, shape, [1, 2, 4, 5])
    assert student.num_kv_shared_layers == 2
    if hasattr(config, "kv_sharing_modes"):  # from transformers 5.23 on
        assert student.kv_sharing_modes == ["store", "store", "reuse", "reuse"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_global_key_value_heads": 3}, "3 KV heads of 16 channels, and the others 4"),
        ({"per_layer_config": {"1": {"intermediate_size": 24}}}, "full_attention.*must be alike"),
        (
            {"per_layer_config": {"1": {"hidden_size": 24}, "3": {"hidden_size": 24}}},
            "per_layer_config has hidden_size; only layers without a window may differ",
        ),
        (
            {"per_layer_config": {"0": {"head_dim": 16}, "2": {"head_dim": 16}}},
            "per_layer_config has head_dim; only layers without a window may differ",
        ),
    ],
)
def test_layers_that_differ_otherwise_are_refused(changes: dict[str, Any], said: str) -> None:
    config = build_config("gemma4-moe", **changes)
    with pytest.raises(PruningError, match=said):
        Slice.of(config, architecture_of(config), kept_layers=range(4))


def test_what_wants_layers_of_one_size_is_refused() -> None:
    config = build_config("gemma4-moe")
    shape = architecture_of(config)
    first = replace(shape.block(0), heads=0, kv_heads=0)
    blocks = Architecture.of_blocks(shape.hidden, [first, *[shape.block(0)] * 3])
    with pytest.raises(PruningError, match="layers of a gemma4_text model that differ in size"):
        check_architecture(config, blocks)
    with pytest.raises(PruningError, match="whose layers differ in their heads"):
        check_options(config, merge=True, compensate=False)

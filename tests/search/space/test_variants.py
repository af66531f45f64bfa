"""Sizes of every layer: what settings and model type make of them."""

from typing import Any

import pytest

from pruning import ATTENTION, FFN
from pruning.slicing import part_name
from search.config.per_layer import PerLayerConfig
from search.space.variants import NOTHING, variants_of
from tests.pruning.models import build_config


def names(variant: str, layer: int = 0, block: int = 64, **given: Any) -> tuple[str, str]:
    config = build_config(variant)
    found = variants_of(config, PerLayerConfig(**given), sub_blocks=(ATTENTION, FFN), block=block)
    parts = (found[layer].attention, found[layer].ffn)
    return tuple(" ".join(map(part_name, each)) for each in parts)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("variant", "given", "expected"),
    [
        ("llama-gqa-tied", {}, ("A9/3 -", "F40 F32 F20 F8 -")),
        ("llama-gqa-tied", {"kv_heads": [3, 2]}, ("A9/3 A6/2", "F40 F32 F20 F8 -")),
        ("llama-gqa-tied", {"kv_heads": [2], "group_heads": [3, 1]}, ("A9/3 A6/2 A2/2", "F40 ...")),
        ("llama-gqa-tied", {"ffn_shares": [1.0, 0.3], "multiple_of": 16}, ("A9/3 -", "F40 F16")),
        ("llama-mha", {}, ("A6/6 A3/3 -", "F40 F32 F20 F8 -")),
        ("gpt2", {"ffn_shares": [0.5]}, ("A6/6 -", "F192 F96")),  # its width follows its heads
        ("mixtral", {}, ("A9/3 -", "E5x40 E4x40 E2x40 -")),
        ("qwen3", {}, ("A9/3 -", "F40 F32 F20 F8 -")),
    ],
)
def test_sizes_that_a_layer_may_have(
    variant: str, given: dict[str, Any], expected: tuple[str, str]
) -> None:
    attention, ffn = names(variant, **given)
    assert attention == expected[0]
    assert ffn == expected[1].replace("F40 ...", "F40 F32 F20 F8 -")


def test_windows_that_no_sequence_is_longer_than_are_not_offered() -> None:
    of = "smollm3-windows"  # whose first layer has the window, of 6 tokens, already
    assert [names(of, layer)[0] for layer in range(2)] == ["A9/3 -", "A9/3 A9/3w -"]
    assert names(of, 1, block=6)[0] == names(of, 1, windows=False)[0] == "A9/3 -"


def test_sub_blocks_that_may_not_differ_are_the_teachers_own() -> None:
    config = build_config("llama-gqa-tied")
    (only, *_) = variants_of(config, PerLayerConfig(), sub_blocks=(FFN,), block=64)
    assert only.attention == (only.parent.part(ATTENTION),) and len(only.ffn) == 5


def test_a_layer_of_nothing_is_no_pair() -> None:
    config = build_config("llama-gqa-tied")
    (layer, *_) = variants_of(config, PerLayerConfig(), sub_blocks=(ATTENTION, FFN), block=64)
    assert (NOTHING, NOTHING) not in layer.pairs and len(layer.pairs) == 2 * 5 - 1
    assert NOTHING in layer.attention and NOTHING not in layer.trained(ATTENTION)


def test_dense_layers_between_mixtures_keep_their_kind() -> None:
    assert names("qwen3-moe-mixed", 0)[1] == "E4x24 E3x24 E2x24 -"
    assert names("qwen3-moe-mixed", 1)[1] == "F40 F32 F20 F8 -"

"""Sizes of single layers: as text, as a dictionary, and which of them can be cut."""

from dataclasses import replace
from typing import Any

import pytest

from pruning import (
    Architecture,
    Block,
    PruningError,
    architecture_of,
    check_architecture,
    is_legal,
    student_config,
)
from pruning.slicing.selection import Slice
from tests.pruning.models import TYPES, build_config, per_layer_of

TEXTS = {
    "L3 H48 A6/2 F512": [Block(6, 2, 512)] * 3,
    "L3-span H48 A6/2 F512": [Block(6, 2, 512)] * 3,
    "L3 H48 A[6/2*2 -] F[512 -*2]": [Block(6, 2, 512), Block(6, 2, 0), Block(0, 0, 0)],
    "L3 H48 A6/2 F[512 - 256]": [Block(6, 2, 512), Block(6, 2, 0), Block(6, 2, 256)],
    "L3 H48 A[- 6/2w 3/1] F512": [
        Block(0, 0, 512),
        Block(6, 2, 512, window=1),
        Block(3, 1, 512),
    ],
    "L2 H48 A6/2 E[4x16 -]": [Block(6, 2, 0, 4, 16), Block(6, 2, 0)],
    "L2 H48 A6/2 F[- 64] E[4x16 -]": [Block(6, 2, 0, 4, 16), Block(6, 2, 64)],
}


@pytest.mark.parametrize("text", TEXTS)
def test_an_architecture_is_what_its_text_says(text: str) -> None:
    contiguous = int("-span" in text)
    architecture = Architecture.of_blocks(48, TEXTS[text], contiguous=contiguous)
    assert str(architecture) == text
    assert Architecture.parse(text) == architecture
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    assert [architecture.block(index) for index in range(len(TEXTS[text]))] == TEXTS[text]
    assert architecture.per_layer == (len(set(TEXTS[text])) > 1)


def test_what_encloses_all_layers_is_at_none_smaller() -> None:
    architecture = Architecture.parse("L3 H48 A[8/2 3/3 -] F[- 7 9]")
    assert str(architecture.enclosing) == "L3 H48 A12/3 F9"
    assert "blocks" not in architecture.enclosing.to_dict()


@pytest.mark.parametrize("variant", TYPES)
def test_text_of_what_can_be_cut_reads_back(variant: str) -> None:
    config = build_config(variant)
    for seed in range(3):
        architecture = per_layer_of(config, (0, 1, 2), seed)
        assert Architecture.parse(str(architecture)) == architecture


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not written as"),
        ("L0 H48 A6/2 F512", "is not written as"),
        ("L2 H48 F512", "does not describe layers"),
        ("L2 H48 A6/2 F512 and more", "does not describe layers"),
        ("L2 H48 A[6/2 -*2] F512", "describes 3 layers; there are 2"),
        ("L2 H48 A6 F512", "'6' is no size of a layer"),
        ("L2 H48 A6/2 F[512 none]", "'none' is no size of a layer"),
        ("L2 H48 A6/2 E4", "'4' is no size of a layer"),
        ("L2 H48 A[3/0 6/2] F512", "'3/0' is no size of a layer"),
        ("L2 H48 A6/2 E[4x0 4x16]", "'4x0' is no size of a layer"),
        ("L2 H48 A6/2 A3/1 F512", "does not describe layers"),
    ],
)
def test_text_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(PruningError, match=said):
        Architecture.parse(text)


@pytest.mark.parametrize(
    ("variant", "text", "said"),
    [
        ("llama-gqa-tied", "L2 H54 A[9/3 -] F[- 40]", ""),
        ("llama-gqa-tied", "L2 H54 A[- -] F[40 20]", "one layer must have attention"),
        ("llama-gqa-tied", "L2 H54 A[9/3 3/1] F-", "one layer must have an FFN"),
        ("llama-gqa-tied", "L2 H54 A[9/3 9/3w] F40", "llama has no window"),
        ("qwen2", "L2 H48 A[9/3 9/3w] F40", "qwen2 has no window"),
        ("qwen2-windows", "L2 H48 A[9/3 9/3w] F40", ""),
        ("llama-gqa-tied", "L2 H54 A[9/3 6/1] F40", "at most 3 times kv_heads"),
        ("llama-gqa-tied", "L2 H54 A[9/3 -] F[41 40]", "ffn must be between 1 and the teacher's"),
        ("llama-gqa-tied", "L2 H54 A[9/3 4/2] F40", "a hidden size that the heads divide"),
        ("gpt2", "L2 H48 A[6/6 -] F[- 40]", ""),
        ("gpt2", "L2 H48 A[6/6 5/5] F40", "a hidden size of as many heads"),
        ("mixtral", "L2 H48 A9/3 E[2x8 -]", ""),
        ("mixtral", "L2 H48 A9/3 E[1x8 -]", "experts must be at least 2"),
    ],
)
def test_every_layer_must_be_one_that_can_be_cut(variant: str, text: str, said: str) -> None:
    config, architecture = build_config(variant), Architecture.parse(text)
    assert is_legal(config, architecture) == (not said)
    if said:
        with pytest.raises(PruningError, match=said):
            check_architecture(config, architecture)


def test_a_window_that_is_off_is_none() -> None:
    architecture = Architecture.parse("L2 H48 A[9/3 9/3w] F40")
    assert is_legal(build_config("smollm3-windows"), architecture)
    assert not is_legal(build_config("smollm3-windows", use_sliding_window=False), architecture)


def test_a_dense_layer_gets_no_experts() -> None:
    config: Any = build_config("qwen3-moe-mixed")  # whose layer 1 is dense
    whole = architecture_of(config)
    dense, sparse = whole.block(0), whole.block(0)
    dense, sparse = replace(dense, experts=0, expert_ffn=0), replace(sparse, ffn=0)
    right = Architecture.of_blocks(48, [sparse, dense])
    assert Slice.of(config, right, kept_layers=[0, 1]).architecture == right
    assert student_config(config, right, [0, 1]).mlp_only_layers == [1]
    wrong = Architecture.of_blocks(48, [dense, sparse])
    with pytest.raises(PruningError, match="layer 0 of the teacher has a mixture of experts"):
        Slice.of(config, wrong, kept_layers=[0, 1])

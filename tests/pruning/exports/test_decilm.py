"""Copies as DeciLM: read by their words alone they compute what the student does."""

import copy
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning import (
    Architecture,
    Checkpoint,
    PruningError,
    architecture_of,
    load_student,
    write_student,
)
from pruning.exports.decilm import decilm_layers, why_no_decilm, write_decilm
from tests.pruning.exports.decilm_reader import read_decilm
from tests.pruning.models import build_config, build_teacher, difference, logits

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 700.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GROUPED = ("A[9/3 6/3 3/1]", "A[- 4/2 9/3]", "A[2/1 - -]")
ALONE = ("A[6/6 2/2 3/3]", "A[- 4/4 6/6]", "A[1/1 - -]")
FFNS = ("F40", "F[40 - 17]", "F[- 40 -]")


def student(variant: str, text: str, folder: Path, **values: Any) -> Checkpoint:
    """A student of these layers, in float64, cut out of a teacher that is all random."""
    model = build_teacher(variant, dtype=torch.float64, **values)
    model.save_pretrained(folder / "teacher")
    shape = Architecture.parse(f"L3 H{model.config.hidden_size} {text}")
    write_student(Checkpoint(folder / "teacher"), shape, range(3), folder / "student")
    return Checkpoint(folder / "student")


@pytest.mark.parametrize(
    ("variant", "values", "case"),
    [
        *(("llama-gqa-tied", {"hidden_size": 72}, case) for case in range(3)),
        ("llama-gqa-biases", {"hidden_size": 72, "rope_parameters": LLAMA3}, 1),
        *(("llama-mha", {"hidden_size": 48}, case) for case in range(2)),
        ("mistral-gqa-tied", {"hidden_size": 72, "sliding_window": None}, 2),
        ("qwen2", {"hidden_size": 72}, 1),
        # 9 heads of 8 channels
        ("mistral-gqa-tied", {"hidden_size": 54, "sliding_window": None}, 0),
    ],
)
def test_a_decilm_computes_what_the_student_does(
    variant: str, values: dict[str, Any], case: int, tmp_path: Path
) -> None:
    attention = (ALONE if variant == "llama-mha" else GROUPED)[case]
    source = student(variant, f"{attention} {FFNS[case]}", tmp_path, **values)
    (tmp_path / "copy").mkdir()
    write_decilm(source, tmp_path / "copy")
    expected = logits(load_student(source.directory))
    assert difference(logits(read_decilm(tmp_path / "copy")), expected) < 1e-12


def test_the_words_are_those_that_all_readers_take(tmp_path: Path) -> None:
    source = student("llama-gqa-tied", "A[- 4/2 9/3] F[40 - 17]", tmp_path, hidden_size=72)
    (tmp_path / "copy").mkdir()
    write_decilm(source, tmp_path / "copy")
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert (values["model_type"], values["num_attention_heads"]) == ("nemotron-nas", 9)
    blocks = values["block_configs"]
    assert [block["attention"]["n_heads_in_group"] for block in blocks] == [9, 3, 3]
    # An FFN stands beside every attention: llama.cpp drops the attention of a layer without.
    assert all(block["ffn"]["ffn_mult"] == 3 * 256 / (2 * 72) for block in blocks)
    assert {key for block in blocks for key in block["ffn"]} == {
        *("no_op", "ffn_mult", "replace_with_linear")
    }
    unknown = {"num_key_value_heads", "intermediate_size", "base_model_type", "layer_types"}
    assert not unknown & values.keys()
    assert {"rope_theta", "rope_parameters", "torch_dtype"} <= values.keys()


def test_the_configuration_beside_it_has_attributes(tmp_path: Path) -> None:
    source = student("llama-gqa-tied", "A[9/3 - 3/1] F40", tmp_path, hidden_size=72)
    (tmp_path / "copy").mkdir()
    write_decilm(source, tmp_path / "copy")
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    file, _, name = values["auto_map"]["AutoConfig"].partition(".")
    kind = runpy.run_path(str(tmp_path / "copy" / f"{file}.py"))[name]
    config = copy.deepcopy(kind.from_dict(values))
    first, second, _ = config.block_configs
    assert (first.attention.no_op, first.attention.n_heads_in_group) == (False, 3)
    assert (second.attention.no_op, second.ffn.no_op) == (True, False)
    assert not hasattr(first.ffn, "intermediate_size")
    assert json.loads(config.to_json_string())["block_configs"] == values["block_configs"]
    assert config.rope_parameters["rope_theta"] == 700.0


@pytest.mark.parametrize(
    ("hidden", "text", "heads"),
    [
        (72, "A[2/1 -]", 9),  # as many as make up the hidden size
        (72, "A[8/4 -]", 8),  # of 9, no equal groups hold them
        (54, "A[9/3 6/3]", 9),
        (60, "A[9/3 -]", 12),
    ],
)
def test_there_is_one_number_of_query_heads(hidden: int, text: str, heads: int) -> None:
    config = build_config("mistral-gqa-tied", hidden_size=hidden, sliding_window=None)
    layers = decilm_layers(config, Architecture.parse(f"L2 H{hidden} {text} F40"))
    assert max(layer.target.heads for layer in layers) == heads


def test_a_layer_of_nothing_is_left_out_and_the_first_attends() -> None:
    config = build_config("llama-gqa-tied", hidden_size=72)
    shape = Architecture.parse("L4 H72 A[- - 6/3 -] F[- 300 - -]")
    layers = decilm_layers(config, shape)
    assert [layer.index for layer in layers] == [1, 2]
    targets = [(one.target.heads, one.target.kv_heads, one.target.ffn) for one in layers]
    assert targets == [(9, 1, 512), (9, 3, 256)]


@pytest.mark.parametrize(
    ("variant", "values", "text", "reason"),
    [
        ("gemma2", {}, "A[9/3 -]", "Llama's blocks"),
        ("mistral-gqa", {"hidden_size": 72}, "A[9/3 -]", "sliding window"),
        ("qwen2-windows", {"hidden_size": 72}, "A[9/3 -]", "sliding window"),
        ("llama-gqa-tied", {"hidden_size": 9}, "A[8/4 -]", "none holds the heads of all layers"),
        (
            "llama-gqa-tied",
            {
                "hidden_size": 72,
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 700.0},
            },
            "A[9/3 -]",
            "forgets the linear scaling",
        ),
        ("llama-gqa-tied", {"hidden_size": 72, "hidden_act": "gelu"}, "A[9/3 -]", "silu"),
    ],
)
def test_what_decilm_cannot_say_is_refused(
    variant: str, values: dict[str, Any], text: str, reason: str
) -> None:
    config = build_config(variant, **values)
    shape = Architecture.parse(f"L2 H{config.hidden_size} {text} F40")
    assert reason in why_no_decilm(config, shape)
    with pytest.raises(PruningError, match="cannot be written as a DeciLM"):
        decilm_layers(config, shape)


def test_a_uniform_model_could_be_said_too() -> None:
    config = build_config("llama-mha", hidden_size=48)
    whole = architecture_of(config)
    assert why_no_decilm(config, whole) == ""
    assert {layer.target.ffn for layer in decilm_layers(config, replace(whole, ffn=257))} == {512}

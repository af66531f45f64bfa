"""config.json of a student: the teacher's own keys, those of transformers 5 and those before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from pruning import Checkpoint, architecture_of, student_config, write_sorted_teacher, write_student
from pruning.families.config_file import student_values
from tests.pruning.gemma4 import GEMMA4
from tests.pruning.hybrids import HYBRIDS
from tests.pruning.models import (
    VARIANTS,
    build_config,
    build_teacher,
    random_ordering,
    smaller_than,
)

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 2.1, 2.2, 2.3],
}


def raw(variant: str, **changes: Any) -> dict[str, Any]:
    """config.json of a teacher as transformers 5 saves it, changed; ... takes a key away."""
    values = build_config(variant).to_diff_dict() | changes
    return {name: value for name, value in values.items() if value is not ...}


def older(variant: str, **keys: Any) -> dict[str, Any]:
    return raw(variant, rope_parameters=..., dtype=..., **keys)


def cut(values: dict[str, Any], kept: list[int] | None = None, **sizes: Any) -> dict[str, Any]:
    """config.json of a student; by default smaller on every axis."""
    teacher = AutoConfig.for_model(**json.loads(json.dumps(values)))  # which it changes
    shape = replace(architecture_of(teacher), **sizes) if sizes else smaller_than(teacher)
    kept = kept or list(range(shape.layers))
    student = student_config(teacher, replace(shape, layers=len(kept)), kept)
    return student_values(values, student)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_added_changes_nothing_that_is_read(variant: str) -> None:
    teacher = build_config(variant)
    smaller = smaller_than(teacher)
    kept = [0, 2] if variant not in HYBRIDS else list(range(smaller.layers))
    kept = random_ordering(teacher).kept_layers(smaller.layers) if variant in GEMMA4 else kept
    student = student_config(teacher, smaller, kept)
    values = student_values(raw(variant), student)
    read = AutoConfig.for_model(**json.loads(json.dumps(values)))
    wanted = student.to_dict()
    found = read.to_dict()
    for rope in (wanted.get("rope_parameters"), found.get("rope_parameters")):
        (rope or {}).pop("type", None)  # another name of rope_type
    differing = {name for name in wanted if found.get(name) != wanted[name]}
    # Before transformers 5.23 the class's own share stood beside that of the rotary embedding.
    rope = found.get("rope_parameters") or {}
    if found.get("partial_rotary_factor") == rope.get("partial_rotary_factor"):
        differing.discard("partial_rotary_factor")
    # The interval is not read where there is a list, and left out where it is not true.
    assert differing <= {"architectures", "no_rope_layer_interval"}
    assert student_values(values, read) == values, "written once more it is the same"


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (
            older("llama-gqa-tied", rope_theta=5e5, rope_scaling=LLAMA3, torch_dtype="float32"),
            {"rope_theta": 5e5, "rope_scaling": LLAMA3, "torch_dtype": "float32"},
        ),
        (
            older("qwen2", rope_theta=1000000, rope_scaling={"type": "linear", "factor": 2.0}),
            {"rope_theta": 1000000, "rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        (
            older("mistral-gqa", rope_theta=1e6, rope_scaling=None, torch_dtype="bfloat16"),
            {"rope_theta": 1e6, "rope_scaling": None, "torch_dtype": "bfloat16"},
        ),
        (
            older("gemma3", rope_theta=2e6, rope_local_base_freq=3e4, rope_scaling=None),
            {"rope_theta": 2e6, "rope_local_base_freq": 3e4, "rope_scaling": None},
        ),
        (
            older("phi3-long", rope_theta=2e4, rope_scaling=LONG),
            {"rope_theta": 2e4, "rope_scaling": LONG, "original_max_position_embeddings": 32},
        ),
        (
            older("gpt-neox", rotary_emb_base=20000, rotary_pct=0.5),
            {"rotary_emb_base": 20000, "rotary_pct": 0.5},
        ),
        (
            older("nemotron", rope_theta=2e4, partial_rotary_factor=0.75),
            {"rope_theta": 2e4, "partial_rotary_factor": 0.75},
        ),
        (raw("gpt2", n_ctx=32, task_specific_params={"a": {"b": 1}}), {"n_ctx": 32}),
        (
            raw("qwen2", sliding_window=4096, use_sliding_window=False, my_own_key=[1]),
            {"sliding_window": 4096, "my_own_key": [1]},
        ),
    ],
)
def test_keys_of_the_teacher_stay(values: dict[str, Any], kept: dict[str, Any]) -> None:
    student = cut(values)
    assert {name: student[name] for name in kept} == kept
    changed = {name for name in values if student.get(name) != values[name]}
    assert changed <= {
        *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads"),
        *("intermediate_size", "n_layer", "n_embd", "n_head", "n_inner", "layer_types"),
        *("num_local_experts", "moe_intermediate_size", "attention_dropout", "max_window_layers"),
        *(
            "_sliding_window_pattern",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
            "architectures",
            "transformers_version",
        ),
    }


@pytest.mark.parametrize(
    ("values", "added"),
    [
        (raw("llama-gqa-tied", dtype="bfloat16"), {"rope_theta": 700.0, "torch_dtype": "bfloat16"}),
        (
            raw("llama-mha", rope_parameters=YARN | {"rope_theta": 5e5}),
            {"rope_theta": 5e5, "rope_scaling": YARN | {"type": "yarn"}},
        ),
        (
            raw("olmo2", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}),
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        (raw("gemma3"), {"rope_theta": 900.0, "rope_local_base_freq": 70.0}),
        (
            raw("phi3-long"),
            {"rope_theta": 700.0, "rope_scaling": LONG},
        ),
        (raw("gpt-neox"), {"rotary_emb_base": 700.0, "rotary_pct": 0.5}),
        (raw("phi3"), {"rope_theta": 700.0, "partial_rotary_factor": 0.5}),
        (raw("qwen3-moe"), {"num_experts": 3, "num_local_experts": 3}),
        (raw("gpt2"), {"n_ctx": 64}),
        (older("granite", rope_theta=2e4), {"rope_parameters": {"rope_theta": 2e4}}),
    ],
)
def test_a_teacher_of_one_version_gets_the_keys_of_the_other(
    values: dict[str, Any], added: dict[str, Any]
) -> None:
    student = cut(values)
    for name, value in added.items():
        if name == "rope_parameters":
            value = value | {"rope_type": "default"}
        assert student[name] == value


def test_an_older_key_that_transformers_5_does_not_read_is_put_right() -> None:
    """Where both are there, the teacher was read, and measured, with `rope_parameters`."""
    rope = {"rope_type": "default", "rope_theta": 5e5}
    assert cut(raw("llama-mha", rope_parameters=rope, rope_theta=1e4))["rope_theta"] == 5e5
    assert cut(raw("llama-mha", dtype="bfloat16", torch_dtype="float32"))["torch_dtype"] == (
        "bfloat16"
    )


def test_what_older_software_cannot_be_told_is_refused_there_not_changed() -> None:
    """OLMo 2 takes two keys in transformers 4; with yarn's it stops, as it should."""
    rope = YARN | {"rope_theta": 5e5}
    assert len(cut(raw("olmo2", rope_parameters=rope))["rope_scaling"]) > 2


def test_a_key_that_goes_before_another_has_the_students_size() -> None:
    """LFM2 reads `block_ff_dim` in the place of `intermediate_size` where a file has it."""
    student = cut(raw("lfm2", block_ff_dim=60))
    assert student["block_ff_dim"] == student["intermediate_size"] == 17
    assert architecture_of(AutoConfig.for_model(**student)).ffn == 17


@pytest.mark.parametrize(("variant", "field"), [("granite-hybrid", "layer_types")])
def test_types_of_layers_stay_in_the_words_of_the_teacher(variant: str, field: str) -> None:
    older_words = ["mamba", "attention", "mamba"]
    student = cut(raw(variant, **{field: older_words}), [1, 2])
    assert student[field] == ["attention", "mamba"]
    assert cut(raw(variant), [1, 2])[field] == ["full_attention", "linear_attention"]
    read = AutoConfig.for_model(**student)
    assert getattr(read, field) == ["full_attention", "linear_attention"]


def test_experts_have_the_students_number_under_both_names() -> None:
    teacher = older("qwen3-moe", rope_theta=1e6, num_local_experts=..., num_experts=5)
    student = cut(teacher)
    assert student["num_experts"] == student["num_local_experts"] == 3


@pytest.mark.parametrize(
    ("kept", "period"), [([0, 1, 2, 3], 2), ([0, 1], 2), ([0, 2, 3], None), ([1, 2, 3], None)]
)
def test_a_period_is_named_while_the_kept_layers_have_it(
    kept: list[int], period: int | None
) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        teacher = raw(
            "gemma3",
            num_hidden_layers=4,
            layer_types=kinds,
            **{"_sliding_window_pattern": ..., key: 2},
        )
        student = cut(teacher, kept)
        assert student["layer_types"] == [kinds[layer] for layer in kept]
        assert student.get(key) == period
    ropes = [1, 0, 1, 0]
    teacher = raw(
        "smollm3",
        num_hidden_layers=4,
        layer_types=["full_attention"] * 4,
        no_rope_layers=ropes,
        no_rope_layer_interval=2,
    )
    student = cut(teacher, kept)
    assert student["no_rope_layers"] == [ropes[layer] for layer in kept]
    assert student.get("no_rope_layer_interval") == period


@pytest.mark.parametrize(
    ("kept", "named"), [([0, 1, 2, 3], True), ([0, 1], True), ([1, 2, 3], False), ([0, 2], False)]
)
def test_a_period_may_be_letters_for_the_kinds_of_layers(kept: list[int], named: bool) -> None:
    kinds = [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "full")]
    values = {"layer_types": kinds, "num_hidden_layers": 4, "sliding_window_pattern": "LG"}
    student = cut(raw("exaone4", **values), kept)
    assert student["layer_types"] == [kinds[layer] for layer in kept]
    assert student.get("sliding_window_pattern") == ("LG" if named else None)


def test_the_first_layers_without_a_window_are_counted_again() -> None:
    teacher = raw("qwen2", max_window_layers=2, use_sliding_window=True, sliding_window=6)
    assert cut(teacher, [1, 2])["max_window_layers"] == 1
    assert cut(teacher, [0, 1])["max_window_layers"] == 2


@pytest.mark.parametrize(
    "left_out",
    [
        {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}},
        {"_name_or_path": "someone/model", "name_or_path": "someone/model"},
        {"quantization_config": None, "quantization": {"bits": 4}},
        {"transformers_weights": "other.safetensors", "_attn_implementation_autoset": True},
    ],
)
def test_what_is_true_of_the_teachers_folder_only_is_left_out(left_out: dict[str, Any]) -> None:
    assert not cut(raw("phi3", **left_out)).keys() & left_out.keys()


def test_the_class_that_the_weights_are_of_is_named() -> None:
    assert cut(raw("llama-mha", architectures=...))["architectures"] == ["LlamaForCausalLM"]
    assert cut(raw("gemma3", architectures=["X"]))["architectures"] == ["Gemma3ForCausalLM"]


def test_a_sorted_teacher_and_its_students_keep_the_keys_too(tmp_path: Path) -> None:
    model = build_teacher("llama-gqa-tied")
    model.save_pretrained(tmp_path / "teacher")
    file = tmp_path / "teacher" / "config.json"
    file.write_text(json.dumps(older("llama-gqa-tied", rope_theta=700, my_own_key="x")))
    teacher = Checkpoint(tmp_path / "teacher")
    write_sorted_teacher(teacher, random_ordering(model.config), tmp_path / "sorted")
    shape = smaller_than(model.config)
    write_student(Checkpoint(tmp_path / "sorted"), shape, [0, 1], tmp_path / "student")
    for name in ("sorted", "student"):
        found = json.loads((tmp_path / name / "config.json").read_text())
        assert (found["rope_theta"], found["my_own_key"]) == (700, "x")
        assert found["rope_parameters"]["rope_theta"] == 700

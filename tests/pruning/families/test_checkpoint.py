"""Reading checkpoints as they are found on disk, whole or broken."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MambaConfig

from pruning import (
    FAMILIES,
    Checkpoint,
    PruningError,
    architecture_of,
    cut_student,
    write_sorted_teacher,
    write_student,
)
from tests.exactness import EXACT, fp32_tolerance
from tests.pruning.models import (
    build_config,
    build_teacher,
    difference,
    logits,
    random_ordering,
    smaller_than,
)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    build_teacher("llama-gqa-tied").save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["llama-gqa-tied", "llama-gqa-biases", "mistral-mha"])
def test_shards_are_sorted_and_cut_like_one_file(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    ordering = random_ordering(model.config)
    architecture = smaller_than(model.config)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    students = []
    for name in ("one", "many"):
        teacher = Checkpoint(tmp_path / name)
        teacher.check()
        write_sorted_teacher(teacher, ordering, tmp_path / f"{name}-sorted")
        source = Checkpoint(tmp_path / f"{name}-sorted")
        source.check()
        loaded = AutoModelForCausalLM.from_pretrained(source.directory)
        assert difference(logits(loaded), logits(model)) <= EXACT
        students.append(cut_student(source, architecture, ordering.kept_layers(2)).state_dict())
    assert len(Checkpoint(tmp_path / "many").files()) > 2
    assert students[0].keys() == students[1].keys()
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_a_whole_checkpoint_passes(directory: Path) -> None:
    Checkpoint(directory).check()


def test_a_tied_head_and_derived_tensors_in_the_file_are_left_out(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, directory / WEIGHTS)
    teacher = Checkpoint(directory)
    teacher.check()
    write_sorted_teacher(teacher, random_ordering(teacher.config), directory / "sorted")
    names = set(load_file(directory / "sorted" / WEIGHTS))
    assert set(tensors) - names == {
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }


@pytest.mark.parametrize("fault", ["missing", "misshapen", "nan"])
def test_check_names_the_wrong_tensor(fault: str, directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    if fault == "missing":
        del tensors[NAME]
    elif fault == "misshapen":
        tensors[NAME] = tensors[NAME][:-1].contiguous()
    else:
        tensors[NAME][3, 4] = float("nan")
    save_file(tensors, directory / WEIGHTS)
    with pytest.raises(PruningError, match=NAME.replace(".", r"\.")):
        Checkpoint(directory).check()


SPARE = {
    "llama-gqa-tied": ("v_head.weight", "model.layers.7.mlp.up_proj.weight"),
    "gpt2": ("transformer.h.0.attn.masked_bias", "transformer.h.3.ln_1.weight"),
    "gpt-neox": ("gpt_neox.layers.0.attention.rotary_emb.inv_freq", "score.weight"),
    "mixtral": (
        "model.layers.3.block_sparse_moe.experts.0.w1.weight",
        "model.layers.0.self_attn.k_scale",
    ),
    "qwen3-moe": ("model.layers.3.mlp.experts.0.up_proj.weight", "model.mtp.norm.weight"),
}


@pytest.mark.parametrize("variant", SPARE)
def test_what_transformers_leaves_aside_is_left_out(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    model.save_pretrained(tmp_path / "teacher")
    tensors = load_file(tmp_path / "teacher" / WEIGHTS)
    spare = {name: torch.ones(2, 2, dtype=torch.int8) for name in SPARE[variant]}
    save_file(tensors | spare, tmp_path / "teacher" / WEIGHTS)
    teacher = Checkpoint(tmp_path / "teacher")
    teacher.check()
    assert set(teacher.left_aside) == set(spare)
    write_sorted_teacher(teacher, random_ordering(model.config), tmp_path / "sorted")
    assert not set(load_file(tmp_path / "sorted" / WEIGHTS)) & set(spare)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "sorted")
    assert difference(logits(loaded), logits(model)) <= fp32_tolerance(model.config)


def test_what_transformers_loads_is_never_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_teacher("qwen2").save_pretrained(tmp_path)
    row = FAMILIES["qwen2"]
    fewer = {name: axes for name, axes in row.layer_tensors.items() if "q_proj.bias" not in name}
    monkeypatch.setitem(FAMILIES, "qwen2", replace(row, layer_tensors=fewer))
    with pytest.raises(PruningError, match=r"layers\.0\.self_attn\.q_proj\.bias that transformers"):
        Checkpoint(tmp_path).check()


HEADS = {
    "llama-gqa-tied": "lm_head",
    "gpt2": "lm_head",
    "gemma2": "lm_head",
    "gpt-neox": "embed_out",
}


@pytest.mark.parametrize("variant", HEADS)
@pytest.mark.parametrize("silent", [False, True])
def test_a_tied_head_is_the_embedding_or_refused(
    variant: str, silent: bool, tmp_path: Path
) -> None:
    model = build_teacher(variant, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    head = f"{HEADS[variant]}.weight"
    config = json.loads((tmp_path / "config.json").read_text())
    if silent:  # what the class does by itself: Llama and GPT-NeoX untie, GPT-2 and Gemma tie
        del config["tie_word_embeddings"]
        (tmp_path / "config.json").write_text(json.dumps(config))
    tensors, embedding = load_file(tmp_path / WEIGHTS), model.get_input_embeddings()
    tensors[head] = embedding.get_parameter("weight").detach().clone()
    save_file(tensors, tmp_path / WEIGHTS)
    teacher = Checkpoint(tmp_path)
    teacher.check()
    assert teacher.left_aside == ()
    tensors[head][5, 7] += 1.0
    save_file(tensors, tmp_path / WEIGHTS)
    if silent and variant in ("llama-gqa-tied", "gpt-neox"):
        Checkpoint(tmp_path).check()
        return
    with pytest.raises(PruningError, match=rf"{head} of its own that differs from"):
        Checkpoint(tmp_path).check()


def test_a_student_has_one_type_that_of_most_of_the_teachers_bytes(tmp_path: Path) -> None:
    model = build_teacher("llama-mha")
    model.save_pretrained(tmp_path / "teacher")
    tensors = {
        name: tensor if "norm" in name or "lm_head" in name else tensor.bfloat16()
        for name, tensor in load_file(tmp_path / "teacher" / WEIGHTS).items()
    }
    save_file(tensors, tmp_path / "teacher" / WEIGHTS)
    teacher = Checkpoint(tmp_path / "teacher")
    assert teacher.dtype == torch.bfloat16
    whole = architecture_of(teacher.config)
    write_student(teacher, whole, [0, 1, 2], tmp_path / "student")
    written = load_file(tmp_path / "student" / WEIGHTS)
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student").state_dict()
    for name, tensor in written.items():
        assert torch.equal(tensor, tensors[name].bfloat16()) and torch.equal(tensor, loaded[name])


def test_unsupported_model_type_is_named(tmp_path: Path) -> None:
    MambaConfig().save_pretrained(tmp_path)
    with pytest.raises(PruningError, match=r"'mamba' have no row"):
        Checkpoint(tmp_path).check()


def test_a_truncated_file_is_refused(directory: Path) -> None:
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(PruningError, match="damaged"):
        Checkpoint(directory).check()
    with pytest.raises(PruningError, match="damaged"):
        write_sorted_teacher(
            Checkpoint(directory),
            random_ordering(Checkpoint(directory).config),
            directory / "sorted",
        )


def test_weights_that_are_only_pickled_are_refused(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()
    with pytest.raises(PruningError, match="safetensors"):
        Checkpoint(directory).check()


@pytest.mark.parametrize("fault", ["absent", "not json", "hidden not divisible", "type unknown"])
def test_an_unreadable_configuration_is_refused(fault: str, directory: Path) -> None:
    file = directory / "config.json"
    values = json.loads(file.read_text())
    if fault == "absent":
        file.unlink()
    elif fault == "not json":
        file.write_text("{")
    elif fault == "hidden not divisible":
        file.write_text(json.dumps(values | {"hidden_size": 50}))
    else:
        file.write_text(json.dumps(values | {"model_type": "no_such_type"}))
    with pytest.raises(PruningError, match=r"config\.json"):
        Checkpoint(directory).check()


@pytest.mark.parametrize("fault", ["shard gone", "index cut", "shard without tensor"])
def test_a_broken_set_of_shards_is_refused(fault: str, tmp_path: Path) -> None:
    build_teacher("llama-gqa-tied").save_pretrained(tmp_path, max_shard_size="40KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    if fault == "shard gone":
        shard.unlink()
    elif fault == "index cut":
        (tmp_path / INDEX).write_text((tmp_path / INDEX).read_text()[:50])
    else:
        tensors = load_file(shard)
        tensors.pop(next(iter(tensors)))
        save_file(tensors, shard)
    with pytest.raises(PruningError, match="copy"):
        Checkpoint(tmp_path).check()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"hybrid_override_pattern": "M*-M"}, "hybrid_override_pattern"),
        ({"num_hidden_layers": 9}, "num"),
    ],
)
def test_two_patterns_of_layers_that_differ_are_refused(
    said: dict[str, Any], name: str, tmp_path: Path
) -> None:
    build_config("nemotron-h").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    agreeing = {"hybrid_override_pattern": "M-*M", "num_hidden_layers": 4}
    file.write_text(json.dumps(values | agreeing))
    assert Checkpoint(tmp_path).config.num_hidden_layers == 4
    file.write_text(json.dumps(values | agreeing | said))
    with pytest.raises(PruningError, match=f"says {name}.*, but its layers are .*; mend one"):
        assert Checkpoint(tmp_path).config

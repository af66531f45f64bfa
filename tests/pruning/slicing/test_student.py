"""Precision, per-layer lists, refusals and files of sorting and cutting."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from experiments.benchmarks.pruning.cut_large import EIGHT, MEMORY_OVER, timed, write_checkpoint
from experiments.benchmarks.pruning.cut_large import random_ordering as cut_ordering
from pruning import (
    Checkpoint,
    PruningError,
    architecture_of,
    check_architecture,
    cut_student,
    write_sorted_teacher,
    write_student,
)
from pruning.slicing.writer import write_tensors
from tests.exactness import EXACT
from tests.pruning.models import (
    build_config,
    build_teacher,
    difference,
    logits,
    random_ordering,
    smaller_than,
)


def test_low_precision_is_kept_on_disk_and_raised_in_memory(tmp_path: Path) -> None:
    model: Any = build_teacher("llama-gqa-biases").bfloat16()
    model.save_pretrained(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    source = Checkpoint(tmp_path / "sorted")
    architecture = smaller_than(model.config)
    kept = ordering.kept_layers(architecture.layers)
    write_student(source, architecture, kept, tmp_path / "student")
    written = load_file(tmp_path / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        student = cut_student(source, architecture, kept, dtype=dtype)
        for name, parameter in student.named_parameters():
            assert parameter.dtype == dtype
            assert torch.equal(parameter, written[name].to(dtype))
    assert cut_student(source, architecture, kept).dtype == torch.float32


def test_mixed_precision_is_written_tensor_by_tensor(tmp_path: Path) -> None:
    model: Any = build_teacher("llama-gqa-tied").half()
    model.model.norm.float()
    model.save_pretrained(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    architecture = smaller_than(model.config)
    write_student(Checkpoint(tmp_path / "sorted"), architecture, [0, 2], tmp_path / "student")
    written: dict[str, Tensor] = load_file(tmp_path / "student" / "model.safetensors")
    norm = model.model.norm.weight[ordering.hidden[: architecture.hidden]]
    assert torch.equal(written["model.norm.weight"], norm)
    assert written["model.embed_tokens.weight"].dtype == torch.float16


def test_per_layer_lists_are_cut_with_the_layers(tmp_path: Path) -> None:
    types = ["full_attention", "sliding_attention", "full_attention"]
    model = build_teacher("llama-gqa-tied", layer_types=types)
    model.save_pretrained(tmp_path / "teacher")
    ordering = replace(random_ordering(model.config), layers=torch.tensor([1, 2, 0]))
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    architecture = replace(architecture_of(model.config), layers=2)
    write_student(Checkpoint(tmp_path / "sorted"), architecture, [1, 2], tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["layer_types"] == ["sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("variant", "change", "reason"),
    [
        ("llama-gqa-tied", {"hidden": 1000}, "hidden must be between 1 and the teacher's 54"),
        ("llama-gqa-tied", {"hidden": 53}, "llama needs a hidden size that the heads divide"),
        ("llama-gqa-tied", {"heads": 0}, "heads must be between 1 and the teacher's 9"),
        ("llama-gqa-tied", {"heads": 8}, "heads must be a multiple of kv_heads"),
        ("llama-gqa-tied", {"kv_heads": 1}, "heads must be at most 3 times kv_heads"),
        ("llama-gqa-tied", {"layers": 9}, "layers must be between 1 and the teacher's 3"),
        ("llama-gqa-tied", {"experts": 2}, "experts must be 0, as in the teacher"),
        ("gpt2", {"hidden": 40}, "gpt2 needs a hidden size of as many heads as it has"),
        ("mixtral", {"experts": 1}, "experts must be at least 2, those of a token"),
        ("mixtral", {"expert_ffn": 12}, "an expert FFN that 8 divides"),
        ("phi3-long", {"hidden": 42}, "hidden / heads as in the teacher"),
    ],
)
def test_an_impossible_architecture_is_refused_with_the_rule(
    variant: str, change: dict[str, Any], reason: str
) -> None:
    config = build_config(variant)
    with pytest.raises(PruningError, match=f"cannot be cut out of .*: .*{reason}"):
        check_architecture(config, replace(architecture_of(config), **change))


def test_scaling_by_layer_keeps_the_depth() -> None:
    config = build_config("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(PruningError, match="all its layers"):
        check_architecture(config, replace(architecture_of(config), layers=2))
    check_architecture(config, architecture_of(config))


@pytest.fixture
def teacher(tmp_path: Path) -> Checkpoint:
    build_teacher("mistral-gqa").save_pretrained(tmp_path / "teacher")
    return Checkpoint(tmp_path / "teacher")


@pytest.mark.parametrize("kept", [[0], [], [0, 0], [0, 0, 1], [1, 0], [0, 3], [-1, 0]])
def test_layers_that_cannot_be_kept_are_refused(
    teacher: Checkpoint, kept: list[int], tmp_path: Path
) -> None:
    architecture = replace(architecture_of(teacher.config), layers=2)
    with pytest.raises(PruningError, match=r"the layers to keep are \["):
        write_student(teacher, architecture, kept, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_an_occupied_directory_is_refused(teacher: Checkpoint, tmp_path: Path) -> None:
    whole = architecture_of(teacher.config)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.txt").write_text("kept")
    with pytest.raises(PruningError, match="exists and is not empty"):
        write_student(teacher, whole, [0, 1, 2], tmp_path / "student")
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["mine.txt"]


def test_an_interrupted_write_leaves_nothing(
    teacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)  # after every byte, before the directory has its name
    out = tmp_path / "out" / "student"
    with pytest.raises(KeyboardInterrupt):
        write_student(teacher, architecture_of(teacher.config), [0, 1, 2], out)
    with pytest.raises(KeyboardInterrupt):
        write_sorted_teacher(teacher, random_ordering(teacher.config), out)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(
    teacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    whole = architecture_of(teacher.config)
    with pytest.raises(PruningError, match=r"needs 0\.00 GB of disk, but only 0\.00 GB are free"):
        write_student(teacher, whole, [0, 1, 2], tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.usefixtures("float64")
def test_shards_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_teacher("qwen3-moe")
    model.save_pretrained(tmp_path / "teacher", max_shard_size="40KB")
    teacher = Checkpoint(tmp_path / "teacher")
    assert len(teacher.files()) > 2
    defaults: Any = write_tensors.__kwdefaults__
    monkeypatch.setitem(defaults, "shard_bytes", 30_000)
    ordering = random_ordering(model.config)
    write_sorted_teacher(teacher, ordering, tmp_path / "sorted")
    written = Checkpoint(tmp_path / "sorted")
    assert len(written.files()) > 2
    written.check()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "sorted")
    assert difference(logits(loaded), logits(model)) <= EXACT


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["gpt2", "mistral-gqa-tied"])
def test_a_file_of_the_bare_model_is_read(variant: str, tmp_path: Path) -> None:
    model: Any = build_teacher(variant)
    model.save_pretrained(tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path / "bare")
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "bare" / "config.json")
    names = load_file(tmp_path / "bare" / "model.safetensors")
    assert not any(name.startswith(("transformer.", "model.")) for name in names)
    bare = Checkpoint(tmp_path / "bare")
    bare.check()
    student = cut_student(bare, architecture_of(model.config), [0, 1, 2], dtype=torch.float64)
    assert difference(logits(student), logits(model)) <= EXACT


def test_an_output_that_cannot_be_made_is_refused(teacher: Checkpoint, tmp_path: Path) -> None:
    whole = architecture_of(teacher.config)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PruningError, match="cannot be made"):
        write_student(teacher, whole, [0, 1, 2], tmp_path / "file" / "student")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "teacher"]


def test_a_link_to_an_empty_directory_is_filled(teacher: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_student(teacher, architecture_of(teacher.config), [0, 1, 2], tmp_path / "link")
    Checkpoint(tmp_path / "real").check()


def test_code_beside_the_teacher_is_not_promised(tmp_path: Path) -> None:
    model: Any = build_teacher("phi3")
    model.save_pretrained(tmp_path / "teacher")
    file = tmp_path / "teacher" / "config.json"
    told = {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    whole = architecture_of(model.config)
    write_student(Checkpoint(tmp_path / "teacher"), whole, [0, 1, 2], tmp_path / "student")
    assert "auto_map" not in json.loads((tmp_path / "student" / "config.json").read_text())


def test_an_integer_tensor_is_refused_by_name(teacher: Checkpoint, tmp_path: Path) -> None:
    tensors = load_file(teacher.directory / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, teacher.directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PruningError, match=f"{name} .*quantised"):
        teacher.check()
    with pytest.raises(PruningError, match=f"{name} .*dequantise"):
        write_student(teacher, architecture_of(teacher.config), [0, 1, 2], tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.process
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    config = LlamaConfig.from_dict(
        EIGHT.to_dict()
        | {"vocab_size": 1000, "hidden_size": 1024, "intermediate_size": 4096}
        | {"num_hidden_layers": 16, "num_attention_heads": 8, "num_key_value_heads": 2}
    )
    largest = write_checkpoint(config, tmp_path / "teacher")
    cut_ordering(config).save(tmp_path / "ordering.safetensors")
    limit = 3 * largest + MEMORY_OVER
    size = (tmp_path / "teacher" / "model.safetensors").stat().st_size
    assert size > 2 * limit  # so that a writer which holds the model cannot pass
    teacher = f"Checkpoint(Path({str(tmp_path / 'teacher')!r}))"
    shape = "Architecture(layers=16, hidden=768, heads=8, kv_heads=2, ffn=3072)"
    ordering = f"Ordering.load(Path({str(tmp_path / 'ordering.safetensors')!r}))"
    output = tmp_path / "student"
    where = f"list(range(16)), Path({str(output)!r}), ordering={ordering}"
    write = f"write_student({teacher}, {shape}, {where})"
    assert timed(f"{teacher}.check()\n{write}")["memory"] <= limit
    student = Checkpoint(output)
    student.check()
    name = "model.layers.3.mlp.down_proj.weight"
    order = cut_ordering(config)
    with Checkpoint(tmp_path / "teacher").reading() as source, student.reading() as written:
        expected = source.view(name)[:][order.hidden[:768]][:, order.ffn[3][:3072]]
        assert torch.equal(written.view(name)[:], expected)

"""A study proves to itself that it cuts what it loads, and that it wrote what it measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from common.errors import SearchError, SearchStopped
from distill.evaluation.logits import answers, answers_kl, next_token_log_probs, precise
from distill.targets import ShardText, evaluation_format
from distill.targets.shards import open_shard
from experiments import run_prune, run_search
from pruning import FAMILIES, Checkpoint, Ordering, write_sorted_teacher
from tests.driver import TEACHER, write_corpus
from tests.pruning.models import build_teacher, token_ids
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
from workspace.proof import MOST_KL, SliceProof, first_difference, require_written
from workspace.sorted_teacher import SortedTeacher

BLOCK = token_ids(40).numpy()


def saved(model: Any, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    model.to(dtype).save_pretrained(directory)
    return directory


def proof_of(directory: Path, dtype: torch.dtype = torch.float32) -> SliceProof:
    model = LoadedModel(ModelSource(directory), torch.device("cpu"), dtype)
    return SliceProof(model, BLOCK, directory.parent)


def edited(directory: Path, **tensors: torch.Tensor) -> None:
    path = directory / "model.safetensors"
    save_file(load_file(path) | tensors, path, {"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gemma3", "qwen3-moe-mixed", "gpt2"])
def test_a_teacher_that_is_cut_as_it_is_loaded_passes(
    variant: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    proof = proof_of(saved(build_teacher(variant), tmp_path / "teacher", dtype), dtype)
    assert "answers as the teacher does" in proof.shuffled()
    ordering = Ordering.shuffled(proof._whole, seed=1)
    write_sorted_teacher(proof.teacher, ordering, tmp_path / "sorted")
    assert "sorted teacher answers" in proof.sorted(SortedTeacher(tmp_path / "sorted"))


def test_a_teacher_that_is_partly_on_disk_is_proven_and_answers_as_one_that_is_not(
    tmp_path: Path,
) -> None:
    teacher = build_teacher("llama-gqa-tied").float()
    teacher.save_pretrained(tmp_path / "teacher")
    whole = LoadedModel(ModelSource(tmp_path / "teacher"), torch.device("cpu"), torch.float32)
    placement = {"device_map": "auto", "max_memory": {"cpu": 100_000}}
    spread = replace(whole, placement=placement, _held=[])
    assert "disk" in spread().hf_device_map.values()
    proof = SliceProof(spread, BLOCK, tmp_path)
    assert "answers as the teacher does" in proof.shuffled()
    assert not list(tmp_path.glob(".slice-*"))
    write_sorted_teacher(proof.teacher, Ordering.shuffled(proof._whole), tmp_path / "sorted")
    assert "sorted teacher answers" in proof.sorted(SortedTeacher(tmp_path / "sorted"))
    form = evaluation_format(whole.source.config.vocab_size)
    for place, model in (("whole", whole), ("spread", spread)):
        ShardText(BLOCK[None].repeat(3, 0), form, 0).write(model(), tmp_path / place)
    found, expected = (open_shard(tmp_path / place) for place in ("spread", "whole"))
    for name, values in expected.items():
        assert np.allclose(found[name], values, atol=1e-5)


def test_a_head_beside_a_tied_embedding_is_named(tmp_path: Path) -> None:
    directory = saved(build_teacher("llama-gqa-tied"), tmp_path / "teacher")
    edited(directory, **{"lm_head.weight": torch.randn(96, 54)})
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert first_difference(Checkpoint(directory), model) == "lm_head.weight"


class LoadedOtherwise(LoadedModel):
    """As if the library changed a tensor while it loads."""

    def __call__(self) -> Any:
        model = super().__call__()
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[0].fill_(1)
        return model


def test_a_tensor_that_is_loaded_otherwise_is_named(tmp_path: Path) -> None:
    directory = saved(build_teacher("qwen3"), tmp_path / "teacher")
    model = LoadedOtherwise(ModelSource(directory), torch.device("cpu"), torch.float32)
    with pytest.raises(SearchError, match="differs is model.layers.1.mlp.up_proj.weight"):
        SliceProof(model, BLOCK, tmp_path).shuffled()


def test_a_sorted_teacher_that_is_another_is_refused(tmp_path: Path) -> None:
    proof = proof_of(saved(build_teacher("qwen2"), tmp_path / "teacher"))
    write_sorted_teacher(proof.teacher, Ordering.shuffled(proof._whole), tmp_path / "sorted")
    name = "model.layers.2.self_attn.v_proj.bias"
    edited(
        tmp_path / "sorted", **{name: load_file(tmp_path / "sorted/model.safetensors")[name] + 1}
    )
    with pytest.raises(SearchError, match="delete it"):
        proof.sorted(SortedTeacher(tmp_path / "sorted"))


@pytest.fixture
def square(tmp_path: Path, corpus: Path) -> list[str]:
    """Options of a command whose teacher has as many neurons as channels, so that a row of the
    table may mix the two up without any size being wrong; it has learnt nothing."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "teacher")
    for file in TEACHER.glob("tokenizer*"):
        (tmp_path / "teacher" / file.name).write_bytes(file.read_bytes())
    given = ["--teacher", str(tmp_path / "teacher"), "--corpus", str(corpus), "--device", "cpu"]
    return [*given, "--block", "32", "--calibration", "8", "--splits.test_tokens", "1024"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text.jsonl.gz")


def break_row(monkeypatch: pytest.MonkeyPatch, tensor: str, axes: tuple[str, str]) -> None:
    """Have the row of the teacher's family say that the tensor has these axes."""
    row = FAMILIES["llama"]
    part = "dense_tensors" if tensor in row.dense_tensors else "layer_tensors"
    changed: dict[str, Any] = {part: {**getattr(row, part), tensor: axes}}
    broken = replace(row, **changed)
    monkeypatch.setitem(FAMILIES, "llama", broken)


@pytest.mark.parametrize(
    ("tensor", "axes", "named"),
    [
        ("mlp.down_proj.weight", ("ffn", "hidden"), "hidden"),
        ("mlp.up_proj.weight", ("hidden", "ffn"), "hidden"),
        ("self_attn.o_proj.weight", ("hidden", "ffn"), "heads"),
    ],
)
def test_a_broken_row_is_refused_before_anything_is_scored(
    tensor: str,
    axes: tuple[str, str],
    named: str,
    square: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_row(monkeypatch, tensor, axes)
    output = tmp_path / "student"
    assert run_prune.main([*square, "--ffn", "16", "--output", str(output)]) == 2
    said = capsys.readouterr()
    assert "cannot be cut: its full-size slice gives other answers" in said.err
    assert f"it differs as soon as its {named} are sorted: the row llama" in said.err
    assert "importance:" not in said.out
    assert not output.exists()


def test_a_search_refuses_a_broken_row_before_anything_is_scored(
    square: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_row(monkeypatch, "self_attn.o_proj.weight", ("hidden", "ffn"))
    workspace = tmp_path / "study"
    options = ["--budget.parameters", "0.9", "--budget.tolerance", "0.9", "--trials", "1"]
    options += ["--short_tokens", "2048", "--full_tokens", "2048", "--workspace", str(workspace)]
    assert run_search.main([*square, *options, "--splits.selection_tokens", "1024"]) == 2
    said = capsys.readouterr()
    assert "cannot be cut: its full-size slice gives other answers" in said.err
    assert "it differs as soon as its heads are sorted: the row llama" in said.err
    assert "importance:" not in said.out
    assert not list(workspace.glob("sorted-*"))


def test_the_line_is_printed(
    square: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_prune.main([*square, "--ffn", "16", "--output", str(tmp_path / "student")]) == 0
    before, after = [line for line in capsys.readouterr().out.splitlines() if "proof: " in line]
    assert "teacher" in before and "student" in after


@pytest.mark.parametrize("damage", ["weights", "configuration", "not a number"])
def test_a_student_that_reads_otherwise_than_it_was_measured_is_refused(
    damage: str, tmp_path: Path
) -> None:
    directory = saved(build_teacher("llama-mha"), tmp_path / "student")
    measured = next_token_log_probs(AutoModelForCausalLM.from_pretrained(directory), BLOCK)
    assert require_written(directory, BLOCK, measured=measured) < 1e-5
    if damage == "configuration":
        path = directory / "config.json"
        facts = json.loads(path.read_text())
        facts["rope_parameters"]["rope_theta"] = 10_000.0
        path.write_text(json.dumps(facts))
    else:
        name = "model.norm.weight"
        value = load_file(directory / "model.safetensors")[name]
        edited(directory, **{name: value * (1.01 if damage == "weights" else float("nan"))})
    with pytest.raises(SearchStopped, match="does not answer as the one that was measured"):
        require_written(directory, BLOCK, measured=measured)


def test_weights_of_less_precision_are_computed_with_in_fp32() -> None:
    narrow: nn.Module = build_teacher("mixtral")
    wide: nn.Module = build_teacher("mixtral")
    narrow.to(torch.bfloat16)
    wide.to(torch.bfloat16).float()
    assert answers_kl(answers(narrow, BLOCK), answers(wide, BLOCK)) < MOST_KL
    before = [value.clone() for value in narrow.parameters()]
    with precise(narrow), pytest.raises(IndexError):
        narrow(input_ids=torch.full((1, 4), 10_000))
    pairs = zip(before, narrow.parameters(), strict=True)
    assert all(old.dtype == new.dtype and torch.equal(old, new) for old, new in pairs)


def test_the_kl_of_answers_is_that_of_the_definition() -> None:
    first, second = torch.randn(2, 70, 11, dtype=torch.float64)
    p, q = first.softmax(-1), second.softmax(-1)
    assert np.isclose(answers_kl(first, second), (p * (p / q).log()).sum(-1).mean(), rtol=1e-9)
    assert np.isnan(answers_kl(first, second * float("nan")))


def test_no_difference_is_none(tmp_path: Path) -> None:
    proof = proof_of(saved(build_teacher("qwen3-moe"), tmp_path / "teacher"))
    assert first_difference(proof.teacher, proof.model()) is None

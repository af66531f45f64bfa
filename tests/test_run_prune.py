"""The command that cuts one student: what it writes, and what a user can get wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from distill import evaluate_live
from experiments.prune.config import PruneConfig, ShapeBudget
from experiments.prune.shape import wanted_architecture
from experiments.run_prune import main
from pruning import Architecture, Checkpoint, architecture_of, load_student, parameter_count
from tests.byte_llama import byte_tokenizer
from tests.driver import ROOT, TEACHER, write_corpus
from tests.multimodal import write_multimodal
from tests.pruning.models import build_config

QUICK = ["--calibration", "8", "--block", "64", "--splits.test_tokens", "1024", "--device", "cpu"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text.jsonl.gz")


@pytest.fixture
def command(corpus: Path, tmp_path: Path) -> Any:
    def run(*options: str, teacher: Path = TEACHER) -> int:
        given = ["--teacher", str(teacher), "--corpus", str(corpus)]
        return main([*given, "--output", str(tmp_path / "student"), *QUICK, *options])

    return run


def test_sizes_are_cut_written_and_measured(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--layers", "5", "--hidden", "168", "--heads", "6", "--ffn", "400") == 0
    output = capsys.readouterr().out
    student = Checkpoint(tmp_path / "student")
    student.check()
    shape = Architecture(layers=5, hidden=168, heads=6, kv_heads=2, ffn=400)
    assert architecture_of(student.config) == shape
    model: Any = AutoModelForCausalLM.from_pretrained(student.directory)
    facts = json.loads((student.directory / "prune.json").read_text())
    assert facts["parameters"] == model.num_parameters()
    assert len(facts["kept_layers"]) == 5
    embedding = AutoModelForCausalLM.from_pretrained(TEACHER).get_input_embeddings()
    kept = embedding.get_parameter("weight")[:, facts["kept_channels"]]
    assert torch.equal(model.get_input_embeddings().weight, kept)
    assert len(AutoTokenizer.from_pretrained(student.directory)) == model.config.vocab_size
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (student.directory / name).read_bytes() == (TEACHER / name).read_bytes()
    card = ModelCard.load(student.directory / "README.md").data
    assert card.license == "apache-2.0" and card.base_model is None
    assert card.eval_results[0].metric_value == round(facts["test"]["zero_shot_kl"], 4)
    assert "kept: layers 5 of 6: " in output and "kept: ffn 400 of 640 (62%), " in output
    assert f"{facts['parameters']:,} parameters" in output
    test = facts["test"]
    assert f"zero shot kl: {test['zero_shot_kl']:.4f}" in output
    assert 0.1 < test["zero_shot_kl"] < 8
    assert test["perplexity"] > test["teacher_perplexity"] > 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("shape", "holds"),
    [
        ("uniform", lambda a: a.layers == 6 and a.hidden < 192 and a.ffn < 640),
        ("width", lambda a: a.layers == 6 and a.hidden < 192 and a.heads < 8 and a.ffn < 640),
        ("depth", lambda a: a.layers < 6 and (a.hidden, a.heads, a.ffn) == (192, 8, 640)),
    ],
)
def test_a_budget_is_met_by_the_shape_asked_for(
    command: Any, tmp_path: Path, shape: str, holds: Any
) -> None:
    options = ["--budget.parameters", "0.5", "--shape", shape, "--evaluate", "false"]
    assert command(*options) == 0
    config = Checkpoint(tmp_path / "student").config
    found = architecture_of(config)
    assert holds(found)
    whole = Checkpoint(TEACHER).config
    limit = parameter_count(whole, architecture_of(whole)) / 2
    assert parameter_count(config, found) <= limit
    assert "test" not in json.loads((tmp_path / "student" / "prune.json").read_text())


def test_a_budget_is_met_by_what_engines_and_multiples_allow(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--budget.parameters", "0.6", "--budget.tolerance", "0.4", "--evaluate", "false"]
    options += ["--serve_with", "ctranslate2", "--space.multiple_of.ffn", "128"]
    assert command(*options) == 0
    found = architecture_of(Checkpoint(tmp_path / "student").config)
    assert found.hidden == 32 * found.heads < 192 and found.ffn % 128 == 0
    engines = json.loads((tmp_path / "student" / "prune.json").read_text())["engines"]
    assert {verdict["engine"] for verdict in engines if verdict["takes"]} >= {"ctranslate2", "mlx"}
    assert "engines that take it: transformers4, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "share", "kept"),
    [
        ("uniform", 0.7, "L30 H480 A6/3 F1248"),
        ("width", 0.7, "L30 H480 A6/3 F1248"),
        ("depth", 0.7, "L18 H576 A9/3 F1536"),
        ("depth+width", 0.7, "L26 H480 A6/3 F1376"),
        ("ffn+heads", 0.7, "L30 H576 A6/3 F864"),
        ("uniform", 0.5, "L30 H384 A6/3 F992"),
        ("width", 0.5, "L30 H384 A6/3 F992"),
        ("depth", 0.5, "L11 H576 A9/3 F1536"),
        ("depth+width", 0.5, "L22 H432 A6/3 F1152"),
        ("ffn+heads", 0.5, "L30 H576 A3/3 F480"),
    ],
)
def test_what_the_shapes_are_of_a_model_with_few_heads(
    shape: str, share: float, kept: str, tmp_path: Path
) -> None:
    smollm2 = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    teacher: Any = SimpleNamespace(config=smollm2)
    budget = ShapeBudget(share)
    config = PruneConfig("teacher", "corpus", tmp_path / "student", budget=budget, shape=shape)
    found = wanted_architecture(config, teacher, device="cpu")
    assert str(found) == kept
    limit = share * parameter_count(smollm2, architecture_of(smollm2))
    assert 0.95 * limit <= parameter_count(smollm2, found) <= limit or shape == "depth"


def test_named_layers_scores_and_options_are_used(command: Any, tmp_path: Path) -> None:
    options = ["--keep_layers", "[0, 2, 5]", "--hidden", "168", "--cut.score", "activation-norm"]
    options += ["--cut.rms_rescale", "true", "--cut.bias_compensation", "true", "--heads", "6"]
    assert command(*options, "--cut.head_merge", "true") == 0
    facts = json.loads((tmp_path / "student" / "prune.json").read_text())
    assert facts["kept_layers"] == [0, 2, 5]
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert student.config.mlp_bias and student.num_parameters() == facts["parameters"]


def test_layers_are_scored_again_after_the_width(command: Any, tmp_path: Path) -> None:
    options = ["--layers", "3", "--hidden", "96", "--cut.layer_score", "kl", "--evaluate", "false"]
    assert command(*options, "--cut.layers_after_width", "true") == 0
    assert len(json.loads((tmp_path / "student" / "prune.json").read_text())["kept_layers"]) == 3


def test_a_spread_teacher_gives_the_same_student(command: Any, tmp_path: Path) -> None:
    options = ["--hidden", "160", "--evaluate", "false"]
    assert command(*options) == 0
    plain = load_file(tmp_path / "student" / "model.safetensors")
    shutil.rmtree(tmp_path / "student")
    assert command(*options, "--spread", "true") == 0
    spread = load_file(tmp_path / "student" / "model.safetensors")
    assert all(torch.equal(tensor, spread[name]) for name, tensor in plain.items())


def test_live_evaluation_of_the_teacher_itself() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(TEACHER, dtype=torch.float32)
    blocks = torch.randint(2048, (3, 64), generator=torch.Generator().manual_seed(0)).numpy()
    same, own = evaluate_live(model, model, blocks=blocks, batch=2)
    assert abs(same.means()["kl"]) < 1e-6 and same.means()["top1_agreement"] == 1
    ids = torch.from_numpy(blocks)
    loss = model(input_ids=ids, labels=ids).loss.item()
    assert float(own.mean()) == pytest.approx(loss, rel=1e-5)
    assert same.ce == pytest.approx(own)


def test_a_shape_with_sizes_per_layer_is_cut_written_and_measured(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "L5 H192 A[8/2 - 4/1*3] F[640*2 - 320 64]"
    assert command("--architecture", text, "--export", "padded", "decilm") == 0
    student = Checkpoint(tmp_path / "student")
    assert str(architecture_of(student.config)) == text
    facts = json.loads((student.directory / "prune.json").read_text())
    assert Architecture.from_dict(facts["architecture"]) == Architecture.parse(text)
    model: Any = load_student(student.directory)
    assert facts["parameters"] == model.num_parameters()
    lines = capsys.readouterr().out
    assert "kept: ffn 332.8 of 640 (52%), from 0 to 640, " in lines
    card = (student.directory / "README.md").read_text()
    assert "| 0 | 8/2 | 640 |" in card and "| 1 | none | 640 |" in card
    assert "| 2 | 4/1 | none |" in card
    assert "proof: the decilm copy answers as the student does" in lines
    padded = AutoModelForCausalLM.from_pretrained(tmp_path / "student-padded").num_parameters()
    assert f"| this copy | {padded:,} |" in (tmp_path / "student-padded/README.md").read_text()
    assert "vllm serve" in (tmp_path / "student-decilm/README.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no size is given"),
        (["--hidden", "0"], "hidden must be between 1 and the teacher's 192"),
        (["--hidden", "256"], "hidden must be between 1 and the teacher's 192"),
        (["--hidden", "190"], "llama needs a hidden size that the heads divide"),
        (["--heads", "5"], "heads must be a multiple of kv_heads"),
        (["--layers", "7"], "layers must be between 1 and the teacher's 6"),
        (["--ffn", "many"], "--ffn is many; it must be of type int"),
        (["--experts", "2"], "experts must be 0, as in the teacher"),
        (["--keep_layers", "[1, 0]"], "name each layer once, in order, between 0 and 5"),
        (["--keep_layers", "[0, 6]"], "name each layer once, in order, between 0 and 5"),
        (["--keep_layers", "[]"], "name each layer once"),
        (["--keep_layers", "[0]", "--layers", "2"], "--layers is 2, but --keep_layers names 1"),
        (["--budget.parameters", "0.5", "--ffn", "64"], "--budget.parameters and --ffn are both"),
        (["--budget.parameters", "2"], "above the teacher's|above 1"),
        (["--budget.parameters", "0.5", "--shape", "deep"], "--shape is 'deep'"),
        (["--budget.parameters", "0.01", "--shape", "depth"], "even one layer of full width has"),
        (["--budget.parameters", "0.01"], "the nearest is L"),
        (["--budget.parameters", "0.3", "--shape", "ffn+heads"], "no student of --shape ffn+heads"),
        (["--ffn", "64", "--cut.score", "best"], "no score is called 'best'"),
        (["--ffn", "64", "--cut.layer_score", "best"], "no layer score is called 'best'"),
        (["--ffn", "64", "--block", "4096"], "--block is 4096; it must be between 8 and"),
        (["--ffn", "64", "--calibration", "0"], "--calibration is 0"),
        (["--ffn", "64", "--corpus", "/nowhere/at/all.txt"], "does not exist"),
        (["--ffn", "64", "--device", "cuda"], "finds no CUDA device"),
        (
            ["--ffn", "64", "--device", "gpu"],
            "--device is 'gpu'; it must be one of auto, cpu, cuda",
        ),
        (["--ffn", "64", "--block", "0"], "--block is 0; it must be between 8 and"),
        (
            ["--ffn", "600", "--space.multiple_of", "64"],
            "--ffn is 600, which is no multiple of the",
        ),
        (["--ffn", "640", "--space.multiple_of.depth", "2"], "--space.multiple_of names 'depth'"),
        (["--ffn", "640", "--space.multiple_of", "x"], "--space.multiple_of is x"),
        (["--ffn", "640", "--serve_with", "tgi"], "--serve_with has 'tgi'; it must be any of"),
        (
            ["--hidden", "96", "--serve_with", "mlx", "ctranslate2"],
            "is not for ctranslate2, which needs hidden = heads x head_dim in llama models",
        ),
        (["--layers", "5", "--export", "padded"], "--export has padded: the student is a stock"),
        (["--layers", "5", "--export", "gguf"], "--export has 'gguf'; it must be any of padded"),
        (
            ["--layers", "5", "--cut.least_layers.attention", "2"],
            "least_layers is given, but all layers of the teacher are of one kind",
        ),
        (["--layers", "5", "--cut.least_layers.heads", "2"], "--cut.least_layers has heads: 2"),
        (
            ["--layers", "5", "--cut.ssm_score", "best"],
            "--cut.ssm_score: no score is called 'best'",
        ),
        (["--keep_layers", "one"], "--keep_layers is ['one']; it is of another type"),
        (["--architecture", "small"], "--architecture: the shape 'small' is not written as L6"),
        (["--architecture", "L6 H192 A[8/2*5] F640"], "--architecture: '8/2*5' describes 5"),
        (["--architecture", "L6 H192 A- F640"], "one layer must have attention"),
        (["--architecture", "L6 H192 A[8/2*5 5/1] F640"], "heads must be at most 4 times kv_heads"),
        (["--architecture", "L6 H192 A8/2 F[640*5 64w]"], "'64w' is no size of a layer"),
        (
            ["--architecture", "L6 H192 A8/2 F[640*5 -]", "--ffn", "64"],
            "--architecture and --ffn are both given",
        ),
        (
            ["--architecture", "L6 H192 A8/2 F[640*5 600]", "--space.multiple_of.ffn", "64"],
            "--ffn is 600, which is no multiple of the 64",
        ),
        (
            ["--architecture", "L2 H192 A8/2 F[640 -]", "--keep_layers", "[0]"],
            "--layers is 2, but --keep_layers names 1",
        ),
    ],
)
def test_bad_options_are_one_sentence(
    command: Any,
    options: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    try:
        status = command(*options)
    except SystemExit as problem:
        status = problem.code
    _refused(status, said, tmp_path, capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep_layers", "[0, 1, 3]"], "none of which has attention; keep one of [2] too"),
        (["--layers", "3", "--cut.merge_experts"], "the teacher has no experts"),
        (["--layers", "3", "--cut.bias_compensation"], "not defined for recurrent layers"),
        (
            ["--layers", "3", "--cut.layer_score", "span"],
            "the layers of the teacher differ in kind",
        ),
    ],
)
def test_what_a_hybrid_does_not_allow_is_one_sentence_before_any_work(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = write_hybrid(tmp_path / "teacher")
    given = ["--teacher", str(teacher), "--corpus", "no/corpus", *options]
    status = main([*given, "--output", str(tmp_path / "student")])
    _refused(status, said, tmp_path, capsys)


def test_parts_that_no_layer_of_a_hybrids_student_has_are_named(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = write_hybrid(tmp_path / "teacher")
    given = ["--teacher", str(teacher), "--corpus", str(corpus), "--keep_layers", "[0, 2]"]
    quick = ["--calibration", "4", "--block", "32", "--evaluate", "false", "--device", "cpu"]
    assert main([*given, *quick, "--output", str(tmp_path / "student")]) == 0
    shown = capsys.readouterr().out
    assert "kept: no layer with ffn" in shown
    assert "kept: ssm_heads 6 of 6" in shown


def write_hybrid(directory: Path) -> Path:
    """A tiny random Nemotron-H of a Mamba-2, an FFN, an attention and a Mamba-2 layer."""
    config = build_config("nemotron-h", vocab_size=300)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def _refused(status: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert any(part in error for part in said.split("|")), error
    assert not (tmp_path / "student").exists() and not list(tmp_path.glob(".student*"))


@pytest.mark.parametrize(
    "fault", ["missing", "nan", "quantised", "bits", "type", "heads", "rope", "padding", "head"]
)
def test_a_teacher_that_cannot_be_cut_is_one_sentence(
    fault: str, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(TEACHER, teacher)
    tensors = load_file(teacher / "model.safetensors")
    name = "model.layers.3.mlp.up_proj.weight"
    config = json.loads((teacher / "config.json").read_text())
    said = name
    if fault == "missing":
        del tensors[name]
    elif fault == "padding":
        config["pad_token_id"] = config["vocab_size"]
        said = "pad_token_id"
    elif fault == "head":
        said = "lm_head.weight of its own"
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    elif fault == "nan":
        tensors[name][5, 7] = torch.nan
    elif fault == "bits":
        tensors[name] = tensors[name].to(torch.int8)
    elif fault == "quantised":
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        said = "dequantise"
    elif fault == "heads":
        config |= {"num_key_value_heads": 0}
        said = "config.json"
    elif fault == "rope":
        config["rope_parameters"]["rope_type"] = "nope"
        said = "nope"
    else:
        config |= {"model_type": "mamba"}
        said = "'mamba' have no row"
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    (teacher / "config.json").write_text(json.dumps(config))
    status = command("--ffn", "64", teacher=teacher)
    _refused(status, said, tmp_path, capsys)


def test_spare_tensors_are_named_and_unknown_tokens_are_refused(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(TEACHER, teacher)
    tensors = load_file(teacher / "model.safetensors")
    tensors["v_head.summary.weight"] = torch.zeros(1, 192)
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    tokenizer.add_tokens(["<|im_start|>"])
    tokenizer.save_pretrained(teacher)
    options = ["--ffn", "64", "--evaluate", "false", "--teacher_precision", "fp32"]
    assert command(*options, teacher=teacher) == 0
    said = capsys.readouterr().out
    assert "left out: v_head.summary.weight" in said and "computes in float32" in said
    shutil.rmtree(tmp_path / "student")
    text = tmp_path / "chats.txt"
    text.write_text("\n\n".join(f"<|im_start|>number {n} of many" * 20 for n in range(400)))
    _refused(
        command("--ffn", "64", "--corpus", str(text), teacher=teacher),
        "'<|im_start|>' (number 2048)",
        tmp_path,
        capsys,
    )


def test_no_room_and_an_occupied_directory_are_one_sentence(
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        _refused(command("--ffn", "64"), "GB of disk, but only", tmp_path, capsys)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.txt").write_text("kept")
    assert command("--ffn", "64") == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["mine.txt"]


@pytest.mark.process
def test_stopped_early_it_leaves_nothing(corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "run_prune.py"), "--ffn", "64"]
    command += ["--teacher", str(TEACHER), "--corpus", str(corpus), "--calibration", "100000"]
    command += ["--output", str(tmp_path / "out" / "student")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "importance:" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert error.strip() == "interrupted: nothing was written"
    assert not (tmp_path / "out").exists()


def test_a_row_is_explained_and_nothing_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "olmo2"]) == 0
    shown = capsys.readouterr().out
    assert "olmo2: a row of the table of families; L32 H4096" in shown
    assert "self_attn.q_proj.weight            heads x hidden" in shown
    assert re.search(r"kv_heads    proven \(sorted \S+, silenced \S+\)", shown)
    assert "inference, without the row, proves: layers, hidden, heads, kv_heads, ffn" in shown
    assert main(["--explain", str(TEACHER)]) == 0
    shown = capsys.readouterr().out
    assert f"proofs on layer 0 of {TEACHER}, in float64:" in shown
    assert "kept whole" not in shown


def test_a_multimodal_model_is_explained_by_its_text_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_multimodal(tmp_path / "model", "mistral3")
    assert main(["--explain", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert f"{folder}: a multimodal model, of which the text model is used" in shown
    assert "mistral: a row of the table of families; L3 H48 A6/2 F40" in shown
    assert "proofs on layer 0 of " in shown and "kept whole" not in shown


def test_a_row_that_no_tiny_model_proves_is_said_to_be_of_the_table_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--explain", "nemotron_h"]) == 0
    shown = capsys.readouterr().out
    assert "mixer.out_proj.weight  hidden x ssm_heads * ssm_head_dim" in shown
    assert "mixer.experts.{expert}.up_proj.weight    expert_ffn x hidden\n" in shown
    assert "none: no tiny model of it could be built" in shown
    assert "by the row alone, which the tests of the table hold, are cut: layers, hidden" in shown


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mamba", "none could be inferred: no projection of its layers was found that reads heads"),
        ("no-type", "there is no such folder, and transformers"),
    ],
)
def test_a_row_that_there_is_not_is_one_sentence(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--explain={name}"]) == 2
    assert reason in capsys.readouterr().err

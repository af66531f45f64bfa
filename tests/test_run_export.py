"""The command that copies a per-layer student for other software."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.run_export import main
from pruning import Architecture, Checkpoint, write_student
from pruning.exports import load_copy
from tests.byte_llama import write_byte_llama


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student whose layers differ, with the tokenizer of its teacher."""
    teacher = write_byte_llama(tmp_path / "teacher", layers=3)
    whole = Checkpoint(teacher).config
    heads, groups, ffn = (
        whole.num_attention_heads,
        whole.num_key_value_heads,
        whole.intermediate_size,
    )
    text = f"L3 H{whole.hidden_size} A[- {heads}/{groups} -] F[{ffn} - {ffn // 2}]"
    write_student(Checkpoint(teacher), Architecture.parse(text), range(3), tmp_path / "student")
    for file in teacher.glob("token*"):
        (tmp_path / "student" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "student"


def run(student: Path, output: Path, *options: str) -> int:
    try:
        return main(["--student", str(student), "--output", str(output), *options])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_a_copy_is_a_whole_folder(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(student, tmp_path / "padded") == 0
    lines = capsys.readouterr().out
    assert "padded copy: " in lines and "proof: the padded copy answers" in lines
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "padded")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "padded")
    ids = tokenizer("word", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, min_new_tokens=4).shape[1] == ids.shape[1] + 4
    assert run(student, tmp_path / "decilm", "--form", "decilm") == 0
    found = {path.name for path in (tmp_path / "decilm").iterdir()}
    assert {"README.md", "config.json", "configuration_decilm.py", "model.safetensors"} <= found


@pytest.mark.parametrize(
    ("of", "options", "said"),
    [
        ("teacher", (), "teacher: the student is a stock checkpoint: its layers are all alike"),
        ("nowhere", (), "nowhere does not exist or is no folder"),
        ("student", ("--form", "gguf"), "--form is 'gguf'; it must be one of padded, decilm"),
        ("student", ("--output", "."), "exists and is not empty; name a new directory"),
    ],
)
def test_wrong_input_is_one_sentence(
    of: str,
    options: tuple[str, ...],
    said: str,
    student: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(student.with_name(of), tmp_path / "copy", *options) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and said in error
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_computes_something_else_is_not_kept(
    student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def damaged(*given: Any) -> Any:
        model: Any = load_copy(*given)
        model.get_input_embeddings().weight.data.neg_()
        return model

    monkeypatch.setattr("workspace.models.student_copy.load_copy", damaged)
    assert run(student, tmp_path / "copy") == 1
    assert "the padded copy in " in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()

"""A multimodal teacher in the commands: text models come out, and go back in where asked."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

import search.run.session
from common.errors import SearchStopped
from experiments import run_distill, run_export, run_prune, run_search
from tests.byte_llama import write_byte_llama
from tests.driver import write_corpus
from tests.multimodal import write_multimodal

TEXT = ["--block", "32", "--splits.test_tokens", "512", "--splits.selection_tokens", "512"]
QUICK = [*TEXT, "--device", "cpu"]
CUT = ["--calibration", "8", "--ffn", "24", "--layers", "2"]
TRAIN = ["--tokens", "1024", "--training.batch", "8", "--training.precision", "fp32"]
TRIALS = "the trials would start here"
SEARCH = ["--full_tokens", "1024", "--short_tokens", "512", "--training.batch", "4"]
SEARCH += ["--calibration", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3, a Llama, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    write_multimodal(folder / "gemma3", "gemma3")
    (folder / "gemma3" / "README.md").write_text("---\nlicense: gemma\n---\n")
    write_byte_llama(folder / "llama", layers=2)
    write_corpus(folder / "text.jsonl.gz")
    return folder


def given(folder: Path, teacher: str = "gemma3") -> list[str]:
    return ["--teacher", str(folder / teacher), "--corpus", str(folder / "text.jsonl.gz"), *QUICK]


def status(main: Any, arguments: list[str]) -> int:
    try:
        return int(main(arguments))
    except SystemExit as leaving:
        return int(leaving.code or 0)


@pytest.fixture(scope="module")
def student(folder: Path) -> Path:
    """A student of the Gemma 3, and its copy with pictures beside it."""
    output = folder / "student"
    arguments = [*given(folder), *CUT, "--output", str(output), "--export", "multimodal"]
    assert status(run_prune.main, arguments) == 0
    return output


def same_answers(student: Path, copy: Path) -> bool:
    ids = torch.arange(2, 30)[None]
    text: Any = AutoModelForCausalLM.from_pretrained(student)
    whole: Any = AutoModelForMultimodalLM.from_pretrained(copy)
    with torch.no_grad():
        return torch.allclose(text(ids).logits, whole(input_ids=ids).logits, atol=1e-5)


def test_a_student_is_a_text_model_and_goes_back(student: Path, folder: Path) -> None:
    config = json.loads((student / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"] and config["intermediate_size"] == 24
    copy = folder / "student-multimodal"
    assert same_answers(student, copy)
    assert json.loads((copy / "config.json").read_text())["text_config"]["num_hidden_layers"] == 2
    card = (copy / "README.md").read_text()
    assert "pipeline_tag: image-text-to-text" in card and "license: gemma" in card
    assert "AutoModelForMultimodalLM" in card and str(folder) not in card
    assert (copy / "preprocessor_config.json").exists()
    assert not list(folder.glob(".*"))


def test_the_copy_can_be_had_later(student: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["--student", str(student), "--output", str(tmp_path / "copy")]
    arguments += ["--form", "multimodal", "--multimodal", str(folder / "gemma3")]
    assert status(run_export.main, arguments) == 0
    first, second = (
        p / "model.safetensors" for p in (folder / "student-multimodal", tmp_path / "copy")
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_distilled_student_goes_back_too(
    student: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*given(folder), "--student", str(student), "--output", str(tmp_path / "run")]
    arguments += [*TRAIN, "--export", "multimodal"]
    assert status(run_distill.main, arguments) == 0
    trained = tmp_path / "run" / "student"
    assert same_answers(trained, tmp_path / "run" / "student-multimodal")
    kept = [json.loads((p / "prune.json").read_text())["kept_channels"] for p in (student, trained)]
    assert kept[0] == kept[1]
    assert "text model (gemma3_text) of a multimodal gemma3 is used" in capsys.readouterr().out
    assert status(run_distill.main, arguments) == 0
    output = capsys.readouterr().out
    assert "text model: found text-" in output and "the run is finished" in output


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that is accepted ends, with status 1, where its trials would start."""

    @contextlib.contextmanager
    def stop(*_: Any, **__: Any) -> Iterator[None]:
        raise SearchStopped(TRIALS)
        yield

    monkeypatch.setattr(search.run.session, "ray_cluster", stop)


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--export", "multimodal"], "size can be put back into the multimodal model; give "
         "--space.hidden 48"),
        (["--export", "multimodal", "--family", "0.7", "0.5"], "--family and --export multimodal"),
        (["--export", "padded"], "--space.per_layer lets no layers differ"),
        (["--export", "multimodal", "--space.hidden", "48"], TRIALS),
    ],
)  # fmt: skip
def test_a_search_keeps_the_hidden_size_of_students_that_go_back(
    folder: Path,
    tmp_path: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    budget = [] if "--family" in options else SEARCH[:2]
    arguments = [
        *given(folder),
        *budget,
        *SEARCH[2:],
        "--training.batch",
        "4",
        "--calibration",
        "8",
    ]
    work = tmp_path / "work"
    result = status(run_search.main, [*arguments, "--workspace", str(work), *options])
    error = capsys.readouterr().err
    assert said in error
    assert result == (1 if said == TRIALS else 2)
    assert bool(list(work.glob("text-*"))) == (said == TRIALS)


def without_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def without_tower(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(weights).items() if not n.startswith("vision_tower")}
    save_file(tensors, weights, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, ["--hidden", "24"], "student has hidden size 24, and what gemma3 makes of pictures"),
        (without_processor, ["--ffn", "24"], "gemma3 has no processor (no file like preprocessor_"),
        (without_tower, ["--ffn", "24"], "gemma3 is not whole: missing keys model.vision_tower"),
        (shutil.rmtree, ["--ffn", "24"], "the teacher is no multimodal model that a student"),
    ],
)
def test_what_cannot_go_back_is_refused_before_any_work(
    folder: Path,
    tmp_path: Path,
    change: Any,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(folder / "gemma3", tmp_path / "gemma3")
    shutil.copy(folder / "text.jsonl.gz", tmp_path)
    if change is not None:
        change(tmp_path / "gemma3")
    if change is shutil.rmtree:
        shutil.copytree(folder / "llama", tmp_path / "gemma3")
    before = set(tmp_path.iterdir())
    arguments = [*given(tmp_path), *options, "--output", str(tmp_path / "out")]
    assert status(run_prune.main, [*arguments, "--export", "multimodal"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --export has multimodal: ") and "\n" not in error
    assert said in error
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--form", "multimodal"],
            "--form multimodal and --multimodal, the model that the",
        ),
        (["--multimodal", "gemma3"], "go together; give both or neither"),
        (["--form", "multimodal", "--multimodal", "llama"], "which is no multimodal model"),
        (["--form", "multimodal", "--multimodal", "nowhere"], "neither a folder nor a model"),
    ],
)
def test_what_run_export_is_given_must_go_together(
    folder: Path,
    student: Path,
    tmp_path: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [str(folder / o) if o in ("gemma3", "llama") else o for o in options]
    arguments = ["--student", str(student), "--output", str(tmp_path / "copy"), *options]
    assert status(run_export.main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and said in error
    assert not (tmp_path / "copy").exists()


def test_a_student_that_does_not_say_its_channels_is_refused(
    folder: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Path(shutil.copytree(student, tmp_path / "silent"))
    (silent / "prune.json").unlink()
    arguments = ["--student", str(silent), "--output", str(tmp_path / "copy")]
    arguments += ["--form", "multimodal", "--multimodal", str(folder / "gemma3")]
    assert status(run_export.main, arguments) == 2
    assert "does not say which channel of the teacher" in capsys.readouterr().err

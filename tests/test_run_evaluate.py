"""The command that holds models side by side."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.evaluation.measuring.measured import Store
from experiments.run_evaluate import main
from tests.byte_llama import write_byte_llama
from tests.driver import ROOT, TEACHER

TASKS = ROOT / "experiments/demo/tasks"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two with the same tokenizer, and one with another."""
    folder = tmp_path_factory.mktemp("models")
    small = [
        write_byte_llama(folder / name, layers=number) for number, name in ((1, "<b>"), (2, "two"))
    ]
    return [*small, TEACHER]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    rows = [
        "\n".join(f"text {n} has in line {i} a word {(n * 7 + i) % 13} of it" for i in range(16))
        for n in range(12)
    ]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def run(output: Path, *options: Any) -> int:
    try:
        return main(["--output", str(output), *map(str, options)])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def everything(models: list[Path], text: Path) -> list[Any]:
    asked = ["--tasks", TASKS, "--corpus", text, "--split", "all", "--tokens", 1500]
    return ["--models", *models, *asked, "--task_questions", 6, "--speed.seconds", 0.01]


def test_models_are_held_side_by_side(
    models: list[Path], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(output, *everything(models, text)) == 0
    shown = capsys.readouterr().out
    assert "two: L2 H32 A4/2 F64" in shown and "two: next" not in shown
    found = json.loads((output / "evaluation.json").read_text())
    labels = [model["label"] for model in found["models"]]
    assert labels == ["<b>", "two", "teacher"] and found["reference"] == "<b>"
    figures = {measure["name"]: measure["figures"] for measure in found["measures"]}
    assert set(figures["KL from the reference"]) == {"two"}, "the reference's is 0, another's none"
    assert "teacher reads other tokens than <b>" in " ".join(found["notes"])
    for name in (
        "parameters",
        "bits per byte",
        "perplexity",
        "next_line: acc",
        "prefill",
        "decode",
        "weights",
        "cache",
    ):
        assert set(figures[name]) == set(labels), name
        assert all(figure["value"] >= 0 for figure in figures[name].values())
    assert figures["next_line: acc"]["two"]["difference"]["pairs"] == 6
    assert figures["bits per byte"]["teacher"]["difference"]["pairs"] > 10
    with (output / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == set(labels)
    page = (output / "evaluation.html").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and "<script" not in page
    assert not re.search(r"(src|href)=", page), "it needs nothing else"


def test_a_killed_evaluation_goes_on_where_it_was(
    models: list[Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, results = tmp_path / "out", iter(range(3))
    keep = Store.keep

    def until_killed(*given: Any) -> None:
        if next(results, None) is None:
            raise KeyboardInterrupt
        keep(*given)

    monkeypatch.setattr(Store, "keep", until_killed)
    options = everything(models[:2], text)
    assert run(output, *options) == 130
    known = json.loads((output / "evaluation.json").read_text())
    assert {m["name"] for m in known["measures"] if "two" in m["figures"]} == {"parameters"}
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in (output / "measured").iterdir()}
    assert len(before) == 3
    assert run(output, *options) == 0
    after = {path: path.stat().st_mtime_ns for path in (output / "measured").iterdir()}
    assert len(after) == 6 and before.items() <= after.items()


def test_a_model_that_is_added_is_measured_alone(
    models: list[Path], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--corpus", text, "--split", "all", "--tokens", 300, "--speed.seconds", 0]
    assert run(tmp_path / "out", "--models", models[0], *options) == 0
    capsys.readouterr()
    assert run(tmp_path / "out", "--models", models[0], models[1], *options) == 0
    shown = capsys.readouterr().out
    assert "two: text" in shown and "<b>: text" not in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--models", "{one}", "{one}"], "twice; give it once"),
        (["--models", "{one}", "nowhere/at/all"], "nowhere/at/all"),
        (["--models", "{one}", "--speed.seconds", "0"], "nothing is measured: give --tasks"),
        (["--models", "{one}", "--tasks", "/no/such"], "--tasks has /no/such, which is no folder"),
        (["--models", "{one}", "--tasks", str(TASKS)], "--corpus names none; give one"),
        (["--models", "{one}", "--corpus", "/no/such"], "/no/such does not exist"),
        (
            ["--models", "{one}", "--corpus", "{chat}"],
            "is a chat, and models are measured on plain",
        ),
        (["--models", "{one}", "--corpus", "{short}"], "give --split all"),
        (["--models", "{one}", "--speed.context", "65"], "has only 64 positions"),
        (["--models", "{one}", "--block", "65", "--corpus", "{short}"], "has only 64 positions"),
        (["--models", "{one}", "--corpus_from.tokens", "9"], "learnt from; give --tokens"),
        (["--models", "{bare}"], "no tokenizer"),
        (["--models", "{one}", "--precision", "half"], "--precision is 'half'"),
    ],
)
def test_wrong_input_is_one_sentence(
    options: list[str],
    said: str,
    models: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("chat", "short")}
    files["chat"].write_text('{"messages": [{"role": "user", "content": "word"}]}\n')
    files["short"].write_text('{"text": "some words"}\n')
    bare = shutil.copytree(models[0], tmp_path / "bare")
    for path in bare.glob("token*"):
        path.unlink()
    known = {"one": models[0], "bare": bare, **files}
    assert run(tmp_path / "out", *[option.format(**known) for option in options]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and said in error
    assert not (tmp_path / "out").exists()

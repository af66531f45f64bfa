"""lm-eval's own tasks by name, from a cache of `datasets`, alone and beside folders."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerFast

from common.errors import DistillError
from distill.evaluation.task_loading import check_tasks, named_fingerprint
from distill.evaluation.task_set import TaskSet
from distill.evaluation.tasks import Questions, answer_tasks
from tests.distill.conftest import MakeModel

TASKS = Path(__file__).resolve().parents[3] / "experiments/demo/tasks"


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "question": f"What follows {number}?",
            "choices": {"text": [str(number + 1), "nothing"], "label": ["A", "B"]},
            "answerKey": "A" if number % 3 else "B",
        }
        for number in range(count)
    ]


def write_arc(cache: Path, count: int) -> None:
    """ARC-Easy as `datasets` leaves it in its cache, with other questions."""
    folder = cache / "allenai___ai2_arc/ARC-Easy/0.0.0/0123456789abcdef"
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Dataset.from_list(rows(1)).features
    splits = datasets.SplitDict(dataset_name="ai2_arc")
    for split in ("train", "validation", "test"):
        path = folder / f"ai2_arc-{split}.arrow"
        with ArrowWriter(path=str(path), features=features) as writer:
            for row in rows(count):
                writer.write(row)
            writer.finalize()
        splits.add(datasets.SplitInfo(split, num_examples=count, num_bytes=path.stat().st_size))
    datasets.DatasetInfo(
        features=features,
        builder_name="parquet",
        dataset_name="ai2_arc",
        config_name="ARC-Easy",
        version="0.0.0",
        splits=splits,
    ).write_to_directory(str(folder))


@pytest.fixture
def arc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has ARC-Easy, on a machine without a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_arc(tmp_path / "cache", 12)
    return tmp_path / "cache"


def test_a_name_and_a_folder_are_asked_together(
    arc: Path, tmp_path: Path, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = tmp_path / "questions.jsonl"
    line = '{{"context": "line {}", "choices": ["two", "three"], "answer": 0}}\n'
    data.write_text("".join(line.format(number) for number in range(7)))
    tasks = TaskSet.of([str(TASKS), "arc_easy"])
    assert check_tasks(tasks) == ["next_line", "arc_easy"]
    model = make_model(len(tokenizer), length=128)
    told: list[tuple[int, int]] = []
    found = answer_tasks(
        model,
        tokenizer,
        Questions(tasks, 128, data, limit=10),
        progress=lambda done, total: told.append((done, total)),
    )
    assert {name: len(answers.questions["acc"]) for name, answers in found.items()} == {
        "next_line": 7,
        "arc_easy": 10,  # the first of its 12
    }
    assert told[:2] == [(0, 34), (8, 34)] and told[-1] == (32, 34)
    for answers in found.values():
        for metric, values in answers.questions.items():
            assert sum(values) / len(values) == pytest.approx(answers.metrics[metric])
            assert answers.higher_is_better[metric]


def test_texts_that_lose_their_beginning_are_said(
    arc: Path,
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="distill")
    model = make_model(len(tokenizer), length=128)
    questions = Questions(TaskSet.of("arc_easy"), 16, limit=2)
    answer_tasks(model, tokenizer, questions)
    assert "texts are longer than 16 tokens and lost their beginning" in caplog.text


def test_a_fingerprint_is_of_what_is_asked(arc: Path) -> None:
    first = named_fingerprint(["arc_easy"])
    assert named_fingerprint(["arc_easy"]) == first
    write_arc(arc, 13)
    assert named_fingerprint(["arc_easy"]) != first


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["arc_esy"], r"'arc_esy', which is neither a folder .* did you mean .*\barc_easy\b"),
        (["hellaswag"], r"hellaswag of --tasks cannot be loaded: .*hellaswag.*from the Hub"),
        (["humaneval"], "humaneval"),
    ],
)
def test_what_cannot_be_asked(arc: Path, given: list[str], said: str) -> None:
    with pytest.raises(DistillError, match=said):
        check_tasks(TaskSet.of(given))


def test_two_tasks_of_one_name(arc: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "arc_easy.yaml").write_text("task: arc_easy\n")
    with pytest.raises(DistillError, match="two tasks arc_easy, .*one.*two"):
        check_tasks(TaskSet.of([str(tmp_path / "one"), str(tmp_path / "two")]))
    with pytest.raises(DistillError, match="lm-eval's own and one in a folder"):
        check_tasks(TaskSet.of([str(tmp_path / "one"), "arc_easy"]))

import json
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distill.evaluation.questions import ContextLimit, write_next_line_questions
from distill.evaluation.task_set import TaskSet
from distill.evaluation.tasks import Questions, evaluate_tasks
from tests.distill.conftest import MakeModel
from tests.distill.data.bytewise import bytewise

TASKS = Path(__file__).resolve().parents[3] / "experiments/demo/tasks"


@pytest.fixture
def texts() -> list[str]:
    generator = random.Random(1)
    return [
        "\n".join(f"text {t} line {i} word {generator.randrange(10**6)}" for i in range(30))
        + "\n)\n"
        for t in range(4)
    ]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def numpy_state() -> Any:
    return np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002


def questions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_right_line_follows_the_context_and_the_others_do_not(
    texts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    assert write_next_line_questions(texts, path, count=40, seed=0) == 40
    rows = questions(path)
    assert len({row["context"] for row in rows}) == 40
    assert {row["answer"] for row in rows} == {0, 1, 2, 3}
    for row in rows:
        assert len(row["choices"]) == len(set(row["choices"])) == 4
        for place, choice in enumerate(row["choices"]):
            assert len(choice) >= 12
            follows = any(row["context"] + choice + "\n" in text for text in texts)
            assert follows == (place == row["answer"])


def test_questions_follow_from_the_seed(texts: list[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        write_next_line_questions(texts, file, count=10, seed=seed)
    first, same, other = (file.read_text() for file in files)
    assert first == same != other


def test_as_many_questions_as_there_are(texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    assert write_next_line_questions(texts[:1], path, count=1000, seed=0) == 18
    assert write_next_line_questions(["short\n" * 5], path, count=10, seed=0) == 0
    assert write_next_line_questions([], path, count=10, seed=0) == 0
    assert path.read_text() == ""


def test_questions_fit_the_model(
    texts: list[str], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "q.jsonl"
    write_next_line_questions(texts, path, count=20, seed=0, limit=ContextLimit(tokenizer, 128))
    for row in questions(path):
        lengths = [
            len(tokenizer(row["context"] + choice)["input_ids"]) for choice in row["choices"]
        ]
        assert 90 < max(lengths) <= 128
        right = row["context"] + row["choices"][row["answer"]]
        assert any("\n" + right + "\n" in text for text in texts)


BEGINNINGS = [
    (frame, bos, begins)
    for frame, automatic in (("<s> $A", ["<s>"]), ("<s> $A <end>", ["<s>"]), ("$A", []))
    for bos, begins in (("auto", automatic), ("always", ["<s>"]), ("never", []))
]


@pytest.mark.parametrize(("frame", "bos", "begins"), BEGINNINGS)
def test_questions_fit_with_what_a_text_begins_with(
    texts: list[str], tmp_path: Path, frame: str, bos: str, begins: Any
) -> None:
    tokenizer = bytewise(None, framed=frame)
    path = tmp_path / "q.jsonl"
    write_next_line_questions(
        texts, path, count=20, seed=0, limit=ContextLimit(tokenizer, 128, bos)
    )
    lengths = [
        max(len(row["context"] + choice) for choice in row["choices"]) for row in questions(path)
    ]
    assert 90 < min(lengths) <= max(lengths) <= 128 - len(begins)


def ends_with_the_answer(tmp_path: Path) -> Path:
    """A task of each kind that lm-eval asks a language model: choices, a whole text, a sequel."""
    kinds = {
        "choice": "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: '{{answer}}'\ntarget_delimiter: ''\nmetric_list: [{metric: acc}]\n",
        "whole": "output_type: loglikelihood_rolling\ndoc_to_target: '{{context}}'\n"
        "metric_list: [{metric: word_perplexity}]\n",
        "sequel": "output_type: generate_until\ndoc_to_target: '{{choices[0]}}'\n"
        "generation_kwargs: {max_gen_toks: 2, until: ['\\n']}\n"
        "metric_list: [{metric: exact_match}]\n",
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, kind in kinds.items():
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: $data}}}}\n"
            f"test_split: test\ndoc_to_text: '{{{{context}}}}'\n{kind}"
        )
    return folder


@pytest.mark.parametrize(("frame", "bos", "begins"), BEGINNINGS)
def test_what_is_asked_begins_as_the_corpus_does(
    tmp_path: Path,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    frame: str,
    bos: str,
    begins: Any,
) -> None:
    """In every kind of task, and nothing that the tokenizer ends a text with is in a question."""
    tokenizer = bytewise(None, framed=frame)
    data = tmp_path / "q.jsonl"
    rows = [
        {"context": "one:", "choices": ["two", "red"], "answer": 0},
        {"context": "<s>one:", "choices": ["two", "six"], "answer": 1},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = make_model(len(tokenizer))
    asked: list[str] = []
    monkeypatch.setattr(
        model,
        "forward",
        lambda *given, forward=model.forward, **options: (
            asked.extend(tokenizer.batch_decode(given[0] if given else options["input_ids"]))
            or forward(*given, **options)
        ),
    )
    monkeypatch.setattr("distill.evaluation.tasks.BATCH", 1)
    tasks = TaskSet.of(ends_with_the_answer(tmp_path))
    evaluate_tasks(model, tokenizer, Questions(tasks, 32, data, bos))
    start = "".join(begins)
    choices = {f"{start}one:tw", f"{start}one:re", "<s>one:tw", "<s>one:si"}
    for text in choices:
        assert text in asked, (text, asked)
    assert f"{start}one:" in asked  # before it is gone on with
    first = "<s>"  # lm-eval must put something before the first token of a text
    assert f"{first}one" in asked  # of which the last token is asked for
    assert not any("<end>" in text or "<s><s>" in text for text in asked), asked


def test_demo_task_runs_offline_and_leaves_nothing_changed(
    texts: list[str],
    tmp_path: Path,
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    no_network: None,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = tmp_path / "q.jsonl"
    write_next_line_questions(texts, data, count=12, seed=0, limit=ContextLimit(tokenizer, 128))
    model = make_model(len(tokenizer), length=128).train()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = random.getstate(), numpy_state(), torch.get_rng_state()
    files = sorted(tmp_path.iterdir())
    capfd.readouterr()

    first = evaluate_tasks(model, tokenizer, Questions(TaskSet.of(TASKS), 128, data))
    again = evaluate_tasks(model, tokenizer, Questions(TaskSet.of(TASKS), 128, data))

    assert first == again
    assert set(first) == {"next_line"}
    figures = first["next_line"]
    assert 0 <= figures["acc"] <= 1
    assert set(figures) <= {"acc", "acc_norm", "acc_stderr", "acc_norm_stderr"}
    assert model.training
    assert tokenizer.pad_token is None
    assert random.getstate() == before[0]
    assert np.array_equal(numpy_state(), before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert sorted(tmp_path.iterdir()) == files
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("lm_eval")]


def test_accuracy_is_that_of_the_likeliest_choice(
    texts: list[str], tmp_path: Path, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = tmp_path / "q.jsonl"
    write_next_line_questions(texts, data, count=12, seed=0, limit=ContextLimit(tokenizer, 128))
    model = make_model(len(tokenizer), sharpness=3, length=128)
    right = 0
    for row in questions(data):
        scores = []
        context = tokenizer(row["context"])["input_ids"]
        for choice in row["choices"]:
            following = tokenizer(choice)["input_ids"]
            ids = torch.tensor([context + following])
            with torch.no_grad():
                log_probs = torch.log_softmax(model(input_ids=ids).logits[0], -1)
            places = range(len(context) - 1, len(context) + len(following) - 1)
            pairs = zip(places, following, strict=True)
            scores.append(sum(log_probs[at, token].item() for at, token in pairs))
        right += int(np.argmax(scores) == row["answer"])
    result = evaluate_tasks(model, tokenizer, Questions(TaskSet.of(TASKS), 128, data))
    assert result["next_line"]["acc"] == pytest.approx(right / 12)

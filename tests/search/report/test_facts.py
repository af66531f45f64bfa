"""Facts beside the scores: bits per byte, what is written of better baselines, the command."""

from math import exp, log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from common.intervals import mean_interval
from distill import Corpus
from search.config.names import RANDOM_INITIALISATION
from search.config.objectives import Objectives
from search.finals.measure import Measured, MeasuredStudents
from search.report.facts.language import Language, perplexity_interval
from search.report.facts.run_facts import objective_results, shown_command
from search.report.facts.samples import written_samples
from search.report.facts.students import folders_of
from search.report.winner_files import place_baselines
from search.workers.full_runs import FullResult, FullRun
from tests.byte_llama import byte_tokenizer, write_byte_llama
from tests.search.assets import assets_in
from tests.search.finals.test_selection import FIRST
from workspace.layout import Workspace
from workspace.models import ModelSource

TEXTS = ["first text 1", "Äpfel, Öl, ü", "the last one"]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Test text with a token per byte, of which a text is a sequence."""
    rows = [byte_tokenizer()(text)["input_ids"][:12] for text in TEXTS]
    np.save(tmp_path / "test.npy", np.array(rows, dtype=np.uint16))
    return Corpus(tmp_path)


def test_a_token_per_byte_has_the_bits_of_its_nats(corpus: Corpus) -> None:
    language = Language.of(corpus, byte_tokenizer())
    losses = np.array([log(2), log(4), log(8)])
    # the first character of the second text is cut in the middle: three bytes stand for one
    assert language.text.tokens == 33 and language.bytes == 35
    bits = language.bits_per_byte([losses])
    assert bits is not None
    assert bits.mean == pytest.approx(11 * (1 + 2 + 3) / language.bytes)
    assert language.text.bits_per_byte(float(losses.mean())) == pytest.approx(bits.mean)


def test_only_what_counts_has_bytes(corpus: Corpus) -> None:
    weights = np.zeros((3, 12), dtype=bool)
    weights[0, :4], weights[2, 5] = True, True
    np.save(corpus.directory / "test.weights.npy", weights)
    language = Language.of(corpus, byte_tokenizer())
    assert language.tokens.tolist() == [4, 0, 1] and language.bytes == 5
    bits = language.bits_per_byte([np.array([log(2), 0.0, log(4)])])
    assert bits is not None and bits.mean == pytest.approx((4 * 1 + 1 * 2) / 5)


def test_perplexity_is_of_the_mean_and_its_ends() -> None:
    loss = mean_interval([np.array([1.0, 2.0, 3.0])])
    found = perplexity_interval(loss)
    assert (found.mean, found.low, found.high) == (exp(2.0), exp(loss.low), exp(loss.high))


def test_a_command_is_shown_without_passwords_and_program_folders() -> None:
    url = "postgresql://me:se:cret@host/db"
    shown = shown_command(["/opt/x/run_search.py", f"--storage={url}", "--corpus", "a file"])
    assert shown == "run_search.py --storage=postgresql://me:***@host/db --corpus 'a file'"


def test_objectives_have_units_and_directions() -> None:
    found = objective_results(Objectives.of(["kl", "memory", "task:next_line"]))
    assert [(each.name, each.unit, each.direction) for each in found] == [
        ("kl", "nats per token", "minimize"),
        ("memory", "bytes", "minimize"),
        ("task:next_line", "score of lm-eval", "maximize"),
    ]


def test_better_baselines_are_whole_checkpoints_and_those_of_before_go(tmp_path: Path) -> None:
    teacher = write_byte_llama(tmp_path / "teacher", layers=1)
    student = write_byte_llama(tmp_path / "run" / "model", layers=1)
    for path in student.glob("token*"):
        path.unlink()
    assets = assets_in(tmp_path)
    assets.corpus.mkdir()
    np.save(assets.corpus / "selection.npy", np.arange(32, dtype=np.uint16).reshape(2, 16))
    run = FullRun(RANDOM_INITIALISATION, FIRST, from_scratch=True)
    result = FullResult(
        run=run,
        directory=student.parent,
        tokens=1,
        seconds=1.0,
        resumed_tokens=0,
        curve=[],
        selection=None,  # type: ignore[arg-type]
        answers=None,
    )
    better = Measured(run.role, FIRST, 1000, [result], [])
    winner = Measured("candidate", FIRST, 1000, [result], [])
    students = MeasuredStudents([winner], {RANDOM_INITIALISATION: better})
    search: Any = SimpleNamespace(
        plan=SimpleNamespace(assets=assets), inputs=SimpleNamespace(teacher=ModelSource(teacher))
    )
    outputs = Workspace(tmp_path)
    (outputs.baseline("uniform shrink")).mkdir(parents=True)
    placed = place_baselines([RANDOM_INITIALISATION], students, search=search, outputs=outputs)
    assert placed == {RANDOM_INITIALISATION: tmp_path / "baselines" / "random-initialisation"}
    (folder,) = (tmp_path / "baselines").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"tokenizer.json", "model.safetensors"}
    AutoModelForCausalLM.from_pretrained(folder)
    folders = folders_of(students, [outputs.best], baselines=placed, root=outputs.root)
    assert folders == {id(winner): "best", id(better): "baselines/random-initialisation"}
    place_baselines([], students, search=search, outputs=outputs)
    assert not outputs.baselines.exists()


def test_a_sample_that_cannot_be_written_ends_nothing(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = write_byte_llama(tmp_path / "teacher", layers=1)
    write_byte_llama(tmp_path / "best", layers=1)
    (tmp_path / "test.texts.jsonl").write_text('"The quick brown fox jumps over the lazy dog"\n')
    monkeypatch.setattr(ModelSource, "load", lambda *_: 1 / 0)
    inputs: Any = SimpleNamespace(
        config=SimpleNamespace(
            completions=3, corpus_from=SimpleNamespace(bos="auto"), spread=False
        ),
        teacher=ModelSource(teacher),
        teacher_dtype=torch.float32,
        device=torch.device("cpu"),
    )
    students: Any = SimpleNamespace(baselines={}, best=None)
    (sample,) = written_samples(inputs, Corpus(tmp_path), students, outputs=Workspace(tmp_path))
    assert sample.prompt == "The quick brown fox jumps over t"
    assert list(sample.written) == ["winner"]
    assert "completions: teacher: left out (division by zero)" in lines
    inputs.config.completions = 0
    assert not written_samples(inputs, Corpus(tmp_path), students, outputs=Workspace(tmp_path))

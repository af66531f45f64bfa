"""Model cards: front matter that the Hub reads, a snippet that runs, nothing that is not known."""

import contextlib
import io
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from pruning import Architecture, Checkpoint, architecture_of, parameter_count, write_student
from pruning.exports import FORMS, copied_parameters
from search.results.cards import write_card, write_copy_card, write_cut_card, write_distilled_card
from search.results.cards.model_card import Card, Origin, hub_id, write_model_card
from search.results.facts import MeasuredText
from search.results.results import TaskResults
from tests.byte_llama import byte_tokenizer
from tests.pruning.models import build_teacher
from tests.search.finished import RESULTS
from workspace.models import write_copies
from workspace.models.model_source import ModelSource
from workspace.models.student_folder import place_student
from workspace.publishing.hub import HERE

TERMS = "---\nlicense: llama3.1\nlicense_link: LICENSE\nlanguage: [en, de]\ntags: [x]\n---\n# T\n"
CARD = Card("A | student", "What it is.", ("pruned",), {"kl": 0.123456, "perplexity": 8.0})


def written(folder: Path, card: Card, origin: Origin) -> tuple[dict[str, Any], str]:
    """(front matter as the Hub reads it, the whole text)"""
    folder.mkdir(exist_ok=True)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text("{}")
    write_model_card(folder, card, origin=origin)
    text = (folder / "README.md").read_text()
    return ModelCard(text).data.to_dict(), text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "teacher").mkdir()
    return tmp_path / "teacher"


def test_of_a_teacher_on_the_hub_all_is_said_that_is_known(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text(TERMS)
    origin = Origin.of({"someone/Model-1B": folder}, "someone/texts")
    front, text = written(tmp_path / "student", CARD, origin)
    assert front["base_model"] == "someone/Model-1B"
    assert front["base_model_relation"] == "finetune"
    assert (front["license"], front["license_link"]) == ("llama3.1", "LICENSE")
    assert front["language"] == ["en", "de"] and front["datasets"] == ["someone/texts"]
    assert front["tags"] == ["espalier", "pruned"]
    (entry,) = front["model-index"]
    metrics = {m["type"]: m["value"] for result in entry["results"] for m in result["metrics"]}
    assert metrics == {"kl_divergence": 0.1235, "perplexity": 8.0}
    assert entry["results"][0]["dataset"]["type"] == "someone/texts"
    assert "Licence" not in text


def test_of_a_folder_nothing_is_made_up_and_no_path_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("{}")
    origin = Origin.of({str(folder): folder}, str(tmp_path / "corpus.jsonl"))
    assert (origin.teacher, origin.corpus) == ("teacher", "corpus.jsonl")
    front, text = written(tmp_path / "student", CARD, origin)
    assert not front.keys() & {"base_model", "base_model_relation", "datasets"}
    assert front["license"] == "unknown"
    assert "not named beside its weights" in text
    assert str(tmp_path) not in text
    without, _ = written(tmp_path / "student", Card("A", "B", ("pruned",)), origin)
    assert "model-index" not in without


@pytest.mark.parametrize("readme", ["no front matter", "---\n: [\n---\n", "---\n- a list\n---\n"])
def test_a_card_that_says_nothing_readable_is_as_none(readme: str, folder: Path) -> None:
    (folder / "README.md").write_text(readme)
    assert Origin.of({"a/b": folder}, "c/d").terms == {}


def test_a_student_of_a_student_names_the_model_on_the_hub(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text(TERMS)
    cut = tmp_path / "cut"
    written(cut, CARD, Origin.of({"someone/Model-1B": folder}, "texts"))
    again = Origin.of({str(cut): cut, str(folder): folder}, "texts")
    assert again.base_model == "someone/Model-1B"
    assert again.terms["license"] == "llama3.1"
    assert Origin.of({str(folder): folder}, "texts").base_model is None
    written(cut, CARD, Origin("cut", "someone/Model-1B", {}, "texts", ()))  # of no known licence
    assert Origin.of({str(cut): cut}, "texts").terms == {}
    assert Origin.of({str(cut): cut, str(folder): folder}, "texts").terms["license"] == "llama3.1"


@pytest.mark.parametrize("name", ["gpt2", "someone/Model-1B"])
def test_hub_ids(name: str) -> None:
    validate_repo_id(name)
    assert hub_id(name) == name


@pytest.mark.parametrize("name", ["/a/b", "study:3", "~/models/x", "../teacher"])
def test_what_is_no_hub_id(name: str, tmp_path: Path) -> None:
    assert hub_id(name) is None
    assert hub_id(str(tmp_path)) is None


def test_the_snippet_runs_as_it_stands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = build_teacher("llama-gqa-tied", vocab_size=256)
    model.save_pretrained(folder)
    byte_tokenizer(end=None).save_pretrained(folder)
    place_student(folder, tmp_path / "student", parent=ModelSource(folder))
    origin = Origin.of({str(folder): folder}, "texts")
    first, second = RESULTS.winners
    for student in (first, replace(second, selection_kl=0.75)):
        results = replace(RESULTS, winners=[first, student])
        write_card(tmp_path / "student", results, origin=origin, student=student)
        text = (tmp_path / "student" / "README.md").read_text()
        (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        monkeypatch.chdir(tmp_path / "student")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(snippet, {})
        assert said.getvalue().startswith("The")
        assert snippet.count("from_pretrained(model") == 2
        assert HERE in snippet, "which an upload replaces by the name on the Hub"


def test_a_card_has_tasks_bits_per_byte_and_what_it_is_for(tmp_path: Path) -> None:
    results = replace(RESULTS, tasks=TaskResults({"quiz": {"acc": 0.5}}, {"quiz": {"acc": 0.75}}))
    results = replace(results, test_text=MeasuredText(tokens=20, bytes=40))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    write_card(tmp_path, results, origin=Origin("T", "a/T", {}, "texts.txt", ()))
    text = (tmp_path / "README.md").read_text()
    found = ModelCard(text).data
    assert isinstance(found, ModelCardData)
    figures = {each.metric_type: each for each in found.eval_results or []}
    assert figures["acc"].dataset_type == "quiz" and figures["acc"].metric_value == 0.5
    assert figures["bits_per_byte"].metric_value == round(0.5 / math.log(2) / 2, 4)
    assert figures["perplexity"].dataset_split == "test"
    assert found.pipeline_tag == "text-generation" and found.library_name == "transformers"
    use = text.partition("## Intended use and limits")[2]
    assert "(`texts.txt`)" in use and "distilled on 4,000 tokens" in use
    assert "find it out before you publish" in use


def test_the_kls_of_a_card_say_why_they_differ(tmp_path: Path) -> None:
    """One is of another text, one of one seed; what a mark means stands below the table."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    several, one = RESULTS.winners

    def text_of(*winners: Any) -> str:
        results = replace(RESULTS, winners=list(winners), baselines={})
        write_card(tmp_path, results, origin=Origin("T", "a/T", {}, "texts.txt", ()))
        return (tmp_path / "README.md").read_text()

    both = text_of(several, replace(one, selection_kl=0.75))
    assert "On the selection split, which is other text and chooses between students" in both
    assert "this checkpoint is the first of its 3, and so has another KL than their mean" in both
    table, note = both.split("| | parameters | KL", 1)[1].split("\n\n", 1)
    assert " * |" in table and "one seed" not in table
    assert note.lstrip().startswith("\\* one seed: seed noise not included\n\n")
    assert "one seed" not in text_of(several)
    assert "this checkpoint is the first" not in text_of(one)


def per_layer_student(folder: Path) -> Path:
    """A student with tokenizer whose layers differ, below `folder`."""
    model: Any = build_teacher("llama-gqa-tied", vocab_size=256, hidden_size=72)
    model.save_pretrained(folder / "teacher")
    shape = Architecture.parse("L3 H72 A[- 9/3 3/1] F[40 17 -]")
    write_student(Checkpoint(folder / "teacher"), shape, range(3), folder / "student")
    byte_tokenizer(end=None).save_pretrained(folder / "student")
    return folder / "student"


def test_the_snippet_of_a_per_layer_student_runs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = per_layer_student(tmp_path)
    front, text = written(student, CARD, Origin.of({"someone/Model-1B": tmp_path}, "texts"))
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(student)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet, {})
    assert said.getvalue().startswith("The") and "AutoModelForCausalLM" not in snippet
    assert front["library_name"] == "espalier"
    assert "--form padded" in text and "--form decilm" in text


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_says_what_it_is_and_who_takes_it(form: str, tmp_path: Path) -> None:
    student = per_layer_student(tmp_path)
    (student / "README.md").write_text(TERMS)
    write_copies(student, [form], partial(write_copy_card, student=student, name="best"))
    copy = tmp_path / f"student-{form}"
    text = (copy / "README.md").read_text()
    config = Checkpoint(student).config
    counts = [parameter_count(config, architecture_of(config)), copied_parameters(config, form)]
    assert all(f"| {count:,} |" in text for count in counts)
    assert ModelCard(text).data.to_dict()["license"] == "llama3.1"
    assert ("| mlx-lm 0.32.2 | yes |" in text, "vllm serve" in text) == (True, form == "decilm")
    assert ("| transformers 4.57.6 | no |" in text) == (form == "decilm")
    assert (copy / "tokenizer.json").exists()


INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": 1, "seed_noise_included": False}
CUT = {
    "architecture": {"layers": 3, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 48},
    "parameters": 1234,
    "kept_layers": [0, 2, 5],
    "engines": [{"engine": "mlx", "version": "mlx-lm 1", "takes": False, "reason": "no head_dim"}],
    "test": {
        "zero_shot_kl": 1.5,
        "perplexity": 9.0,
        "teacher_perplexity": 4.0,
        "top1_agreement": 0.5,
    },
}
DISTILLED = {
    "student": {"name": "small", "parameters": 1234},
    "teacher": {"name": "large", "parameters": 5678},
    "tokens": 4000,
    "before": dict.fromkeys(("kl", "ce", "top1_agreement"), INTERVAL),
    "after": dict.fromkeys(("kl", "ce", "top1_agreement"), INTERVAL),
}


@pytest.mark.parametrize(
    ("write", "facts", "said", "figures"),
    [
        (
            write_cut_card,
            CUT,
            "0, 2, 5",
            {"kl_divergence": 1.5, "perplexity": 9.0, "accuracy": 0.5},
        ),
        (write_cut_card, CUT | {"test": None}, "0, 2, 5", {}),
        (
            write_distilled_card,
            DISTILLED,
            "0.5000 [0.4000, 0.6000] |",
            {"kl_divergence": 0.5, "cross_entropy": 0.5, "accuracy": 0.5, "perplexity": 1.6487},
        ),
    ],
)
def test_the_cards_of_run_prune_and_run_distill(
    write: Any, facts: dict[str, Any], said: str, figures: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path, facts, origin=Origin("large", None, {}, "texts.txt", ()))
    text = (tmp_path / "README.md").read_text()
    front = ModelCard(text).data
    assert isinstance(front, ModelCardData)
    assert {r.metric_type: r.metric_value for r in front.eval_results or []} == figures
    assert said in text and "1,234" in text and "`large`" in text
    assert "Espalier" in text and "http" not in text and "](" not in text

"""The command that makes a study's report from its database."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from experiments.run_report import main
from search.page import Place, StudyFacts, record_results, study_page
from search.results.results_file import write_results
from tests.search.finished import ASKED, RESULTS
from tests.search.page.made_up import add_trial, made_up_study, shape_of
from tests.search.page.structure import Structure
from workspace.layout import Workspace

OWN = replace(RESULTS, asked=replace(ASKED, finished_trials=12))


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def text_of(page: Path) -> str:
    return "".join(Structure(page.read_text("utf-8")).text)


def test_from_the_database_alone_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = made_up_study(9, storage=url_of(tmp_path), name="a study")
    add_trial(study, 10, state=optuna.trial.TrialState.RUNNING)
    assert main([f"--storage={url_of(tmp_path)}"]) == 0
    text = text_of(tmp_path / "a-study-report" / "report.html")
    assert "1 running" in text
    assert "The database has no results of full runs" in text


def test_results_come_from_the_workspace_or_else_from_the_study(tmp_path: Path) -> None:
    facts, outputs = StudyFacts(made_up_study(12)), Workspace(tmp_path)
    here, elsewhere = Place("", outputs, tmp_path), Place("", outputs, None)
    assert study_page(facts, here).results is None
    write_results(OWN, tmp_path / "results.json")
    page = study_page(facts, here)
    assert page.results == OWN
    assert any(what == "results" for what, _ in page.files)
    assert study_page(facts, elsewhere).results is None
    record_results(facts, OWN, kept={shape_of(0): [0, 1]})
    facts = StudyFacts(facts.study)
    page = study_page(facts, elsewhere)
    assert page.results == OWN
    assert page.kept == {shape_of(0): [0, 1]}
    assert [sentence for sentence in page.missing if "not at hand" in sentence]
    add_trial(facts.study, 12)
    page = study_page(StudyFacts(facts.study), elsewhere)
    assert [sentence for sentence in page.missing if sentence.startswith("1 trial has ended")]


def test_results_of_another_study_do_not_count(tmp_path: Path) -> None:
    made_up_study(3, storage=url_of(tmp_path), name="other")
    write_results(OWN, tmp_path / "results.json")
    assert main([f"--workspace={tmp_path}"]) == 0
    assert "Not decided yet" in text_of(tmp_path / "report.html")


def test_a_family_has_one_page_and_one_of_each_member(tmp_path: Path) -> None:
    study = made_up_study(0, storage=url_of(tmp_path))
    for number in range(6):
        add_trial(study, number, member="0.4" if number % 2 else "0.75")
    for member in ("0.75", "0.4"):
        folder = tmp_path / "family" / member
        folder.mkdir(parents=True)
        write_results(replace(OWN, member=member), folder / "results.json")
    assert main([f"--workspace={tmp_path}"]) == 0
    page = Structure((tmp_path / "report.html").read_text("utf-8"))
    text = "".join(page.text)
    assert "2 of 2 members are done" in text
    assert text.index("0.75: winner") < text.index("0.4: winner")
    own = [link for link in page.links if link.startswith("family/")]
    assert [(tmp_path / link).is_file() for link in own] == [True, True]
    assert len(page.ids) == len(set(page.ids))
    assert {*page.wanted} <= set(page.ids)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --storage URL"),
        (["--storage=sqlite:///{}/none.db"], "there is no database"),
        (["--storage=nonsense"], "not a database URL"),
        (["--workspace={}/none"], "is no directory"),
        (["--storage=sqlite:///{}/study.db", "--study=x"], "the studies a, b"),
        (["--storage=sqlite:///{}/study.db"], "say which by --study"),
        (["--storage=postgresql://u:secret@h/d"], "ESPALIER_STORAGE"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(
    options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        made_up_study(0, storage=url_of(tmp_path), name=name)
    before = sorted(tmp_path.iterdir())
    assert main([option.format(tmp_path) for option in options]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert "secret" not in line
    assert sorted(tmp_path.iterdir()) == before

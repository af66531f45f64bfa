"""optuna-dashboard on a study: readable, noted, with curves, and not to be changed through it."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState

from distill.recipes.reports import RunReport
from search.config.objectives import Objectives
from search.config.sampler import SamplerSettings
from search.dashboards.curves import PLOT
from search.dashboards.notes import OWN, TrialNotes, write_study_note
from search.dashboards.page_storage import PageStorage
from search.dashboards.server import shown_only
from search.dashboards.winner_artifacts import keep_artifacts
from search.database.attributes import FINGERPRINT, LEASE
from search.database.coordination import Coordination
from search.database.optuna_internals import handle_of
from search.database.storage import PatientStorage, open_storage
from search.database.trial_facts import architecture_of
from search.samplers.propose import Proposer
from search.space.space import Space
from search.study.agreement import open_study
from search.study.policy import TrialPolicy
from search.study.queue import TrialQueue
from search.study.record import Record
from workspace.layout import Workspace

TOKEN = "f0e1d2c3b4a5f6e7"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PatientStorage]:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    yield storage
    storage.engine.dispose()


def record_of(storage: PatientStorage, space: Space, names: tuple[str, ...]) -> Record:
    """A study with this record's notes."""
    objectives = Objectives(names)
    study = open_study(storage, "a study", objectives=objectives)
    study.set_user_attr(FINGERPRINT, {"corpus": "abc", "space": {"layers": [3, 4]}})
    study.set_user_attr(f"{LEASE}{TOKEN}", None)
    queue = TrialQueue(study, Coordination(study, None, token=TOKEN), max_retries=2)
    policy = TrialPolicy(
        space, Proposer(space, SamplerSettings("random"), 0), 0, objectives=objectives
    )
    return Record(queue, policy, TrialNotes(study, objectives=objectives, teacher=10**6))


def finished(record: Record, report: RunReport) -> int:
    trial = record.next_trial()
    assert trial is not None
    record.report(trial.number, report)
    record.complete(trial.number, report.last.kl, sequences=[1.25, 2.5])
    return trial.number


class Page:
    """The application as a browser asks it."""

    def __init__(self, storage: PatientStorage):
        self.application = shown_only(optuna_dashboard.wsgi(PageStorage(storage)))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[str, Any]:
        given = json.dumps(body or {}).encode()
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(given)),
            "SERVER_NAME": "here",
            "SERVER_PORT": "80",
            "wsgi.input": io.BytesIO(given),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
        }
        told: list[str] = []
        answer = b"".join(
            self.application(environ, lambda status, headers, problem=None: told.append(status))
        )
        return told[0], json.loads(answer) if answer else None


@pytest.mark.parametrize("names", [("kl",), ("kl", "parameters")])
def test_a_page_shows_words_and_curves(
    storage: PatientStorage,
    small_space: Space,
    result_of: Callable[..., RunReport],
    names: tuple[str, ...],
) -> None:
    record = record_of(storage, small_space, names)
    finished(record, result_of({512: 3.0, 1024: 2.5}, done=True))
    status, study = Page(storage).ask("GET", "/api/studies/1")
    assert status == "200 OK" and study["objective_names"] == list(names)
    (trial,) = study["trials"]
    attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
    assert attributes["architecture"] == str(_shape(record))
    assert attributes["tokens per second"] == "1024.0" and attributes["kl"] == "2.5"
    assert trial["intermediate_values"] == [
        {"step": 512, "value": 3.0},
        {"step": 1024, "value": 2.5},
    ]
    plots = {plot["id"]: plot["graph_object"] for plot in study["plotly_graph_objects"]}
    assert (PLOT in plots) == (len(names) > 1)
    assert all("trial 0" in plot for plot in plots.values())
    told = {one["key"]: one["value"] for one in study["user_attrs"]}
    assert told == {"setting corpus": "abc", "setting space.layers": "3, 4"}
    text = json.dumps(study)
    assert TOKEN not in text and "1.25, 2.5" not in text and "{" not in str(attributes.values())


def _shape(record: Record) -> object:
    return architecture_of(record.trials()[0])


def test_studies_of_others_in_the_database_are_left_as_they_are(storage: PatientStorage) -> None:
    study = optuna.create_study(storage=storage, directions=["minimize", "maximize"])
    trial = study.ask()
    for name, value in {"architecture": "resnet", "progress": 0.5}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, (1.0, 2.0))
    status, found = Page(storage).ask("GET", "/api/studies/1")
    assert status == "200 OK" and found["plotly_graph_objects"] == []
    assert {one["key"]: one["value"] for one in found["trials"][0]["user_attrs"]} == {
        "architecture": "resnet",
        "progress": "0.5",
    }


def test_the_study_itself_keeps_what_its_next_start_reads(
    storage: PatientStorage, small_space: Space, result_of: Callable[..., RunReport]
) -> None:
    record = record_of(storage, small_space, ("kl",))
    number = finished(record, result_of({512: 3.0}, done=True))
    Page(storage).ask("GET", "/api/studies/1")
    again = optuna.load_study(study_name="a study", storage=storage).trials[number].user_attrs
    assert again["kl_sequences"] == [1.25, 2.5] and again["driver"] == TOKEN
    assert again["architecture"]["layers"] and again["progress"]["curve"]


def test_a_page_takes_notes_and_nothing_else(
    storage: PatientStorage, small_space: Space, result_of: Callable[..., RunReport]
) -> None:
    record = record_of(storage, small_space, ("kl",))
    finished(record, result_of({512: 3.0}, done=True))
    trial = record.next_trial()
    assert trial is not None
    page = Page(storage)
    key = storage.get_trial_id_from_study_id_trial_number(1, trial.number)
    for method, path in (
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies/1/rename"),
        ("POST", f"/api/trials/{key}/tell"),
        ("POST", f"/api/trials/{key}/user-attrs"),
        ("PUT", "/api/studies/1/note/more"),
    ):
        status, answer = page.ask(method, path, {"state": "fail", "study_name": "other"})
        assert status == "403 Forbidden" and "takes notes" in answer["reason"]
    assert storage.get_trial(key).state == TrialState.RUNNING
    _, study = page.ask("GET", "/api/studies/1")
    version = study["trials"][1]["note"]["version"]
    body = study["trials"][1]["note"]["body"] + "\nlooks odd"
    status, _ = page.ask(
        "PUT", f"/api/studies/1/{key}/note", {"version": version + 1, "body": body}
    )
    assert status == "204 No Content"
    record.report(trial.number, result_of({512: 9.0}))
    record.stop_early(trial.number)
    note = optuna_dashboard.get_note(handle_of(record.study, trial))
    assert "stopped early after 512 tokens" in note and note.endswith("looks odd")
    assert note.count(OWN) == 1


def test_notes_say_what_came_of_a_trial(
    storage: PatientStorage, small_space: Space, result_of: Callable[..., RunReport]
) -> None:
    record = record_of(storage, small_space, ("kl", "parameters"))
    notes = []
    number = finished(record, result_of({512: 3.0}, done=True))
    notes.append(optuna_dashboard.get_note(handle_of(record.study, record.trials()[number])))
    begun = record.next_trial()
    assert begun is not None
    notes.append(optuna_dashboard.get_note(handle_of(record.study, begun)))
    record.lost(begun.number, "its process died")
    notes.append(optuna_dashboard.get_note(handle_of(record.study, begun)))
    taken = record.next_trial()
    assert taken is not None
    notes.append(optuna_dashboard.get_note(handle_of(record.study, taken)))
    record.fail(taken.number, "TrainingDiverged: at step 3")
    notes.append(optuna_dashboard.get_note(handle_of(record.study, taken)))
    assert str(_shape(record)) in notes[0] and "% of the teacher's" in notes[0]
    assert "came to its end after 512 tokens in 2 s: selection KL 3.0000" in notes[0]
    assert "Objectives: kl 3, parameters " in notes[0]
    assert "It runs." in notes[1]
    assert "It was put back, and goes on under a later number: its process died" in notes[2]
    assert f"Goes on with trial {begun.number}" in notes[3] and "It runs." in notes[3]
    assert "It failed: TrainingDiverged: at step 3" in notes[4]
    left = record.next_trial()
    assert left is not None
    record.queue.release()  # the driver is stopped, and tells nobody
    assert isinstance(record.watcher, TrialNotes)
    record.watcher.correct(record.trials(TrialState.FAIL))
    note = optuna_dashboard.get_note(handle_of(record.study, left))
    assert "put back, and goes on under a later number: interrupted: the driver" in note


def test_a_study_keeps_the_files_of_its_winners_once(
    storage: PatientStorage, small_space: Space, tmp_path: Path
) -> None:
    record = record_of(storage, small_space, ("kl",))
    workspace = Workspace(tmp_path)
    for folder in workspace.winner_folders(2):
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"card of {folder.name}")
    for text in ("first", "second"):
        workspace.report.write_text(text)
        keep_artifacts(record.study, workspace.artifacts, workspace, winners=2, member="0.5")
    kept = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(record.study)}
    assert {name: (workspace.artifacts / key).read_text() for name, key in kept.items()} == {
        "0.5-report.html": "second",
        "0.5-winner-1-README.md": "card of best",
        "0.5-winner-2-README.md": "card of 2",
    }
    assert len(list(workspace.artifacts.iterdir())) == 3


def test_a_studys_note_keeps_what_a_reader_wrote(
    storage: PatientStorage, small_space: Space
) -> None:
    study = record_of(storage, small_space, ("kl",)).study
    optuna_dashboard.save_note(study, "mine")
    for line in ("budget: 0.5", "winner: L4"):
        write_study_note(study, [line])
    note = optuna_dashboard.get_note(study)
    assert note.startswith("winner: L4") and "budget" not in note and note.endswith("\n\nmine")

"""Whatever is killed whenever: the same command finishes the study, and nothing is lost.

What happens to the studies is told in tests/stories.py.
"""

import json
from pathlib import Path

import pytest

from experiments.run_search import main
from search.database.trial_facts import origin_of
from tests.driver import Driver, progress_within

pytestmark = pytest.mark.process

SIGINT = 2
"""Which start of the interrupted study ended so."""


def test_interrupted_in_every_way_and_resumed_equals_undisturbed(
    killed: Driver, undisturbed: Driver
) -> None:
    states = killed.states()
    assert states["COMPLETE"] + states["PRUNED"] == 3
    assert states["RUNNING"] == states["WAITING"] == 0
    finished = killed.finished_trials()
    assert [origin_of(trial) for trial in finished] == [0, 3, 5]
    assert all(progress_within(trial).resumed_tokens for trial in finished[:2])
    assert "took back 1 interrupted trials" in killed.output(SIGINT)
    assert "targets: train found" in killed.output()

    found = {str(t.user_attrs["architecture"]): t.user_attrs for t in finished}
    expected = {str(t.user_attrs["architecture"]): t.user_attrs for t in undisturbed.trials()}
    assert len(found) == 3
    assert found.keys() == expected.keys()
    for shape, attributes in found.items():
        assert attributes["kl"] == expected[shape]["kl"]
        assert attributes["tokens"] == expected[shape]["tokens"]
    assert killed.weights() == undisturbed.weights()


def test_every_interruption_is_a_failed_row_with_its_reason(killed: Driver) -> None:
    errors = [t.user_attrs["error"] for t in killed.trials() if t.state.name == "FAIL"]
    reasons = ["driver was gone", "worker died", "driver was stopped"]
    assert len(errors) == len(reasons)
    assert all(reason in error for reason, error in zip(reasons, errors, strict=True))
    assert not any("\n" in error for error in errors)


def test_a_worker_that_died_is_one_line_and_ray_has_a_file(killed: Driver) -> None:
    said = [line for line in killed.output(SIGINT).splitlines() if "the worker died" in line]
    assert len(said) == 1 and "taking it up again" in said[0]
    assert "more in ray-errors.log" in said[0]
    assert "worker process has died" in (killed.workspace / "ray-errors.log").read_text("utf-8")


def test_signals_stop_cleanly_and_say_how_to_resume(killed: Driver, family: Driver) -> None:
    for said in (killed.output(SIGINT), family.output(0)):  # SIGINT, SIGTERM
        assert "start the same command again" in said and "Traceback" not in said


def test_a_database_that_another_program_locks_is_waited_for(extended: Driver) -> None:
    said = extended.output()
    assert "is locked by another program" in said and "Traceback" not in said
    assert said.index("is locked by") < said.index("the database answers after")
    assert len(extended.finished_trials()) == len(extended.trials()), "none was failed or retried"


def test_failing_trials_stop_the_search_with_the_reason(broken: Driver) -> None:
    assert "2 trials failed in a row" in broken.output()
    failed = [t for t in broken.trials() if t.state.name == "FAIL"]
    assert len(failed) == 2
    assert all("checkpoints" in t.user_attrs["error"] for t in failed)


def test_lost_workspace_is_computed_again(lost: Driver, undisturbed: Driver) -> None:
    assert [t.number for t in lost.trials()] == [t.number for t in undisturbed.trials()]
    assert "would repeat a trial" not in lost.output(0)
    assert lost.weights() == undisturbed.weights()  # trained here, taken over from a trial there


def test_second_driver_is_refused_and_does_not_disturb(lost: Driver) -> None:
    assert "another driver is at work" in lost.output(1)
    assert "result: L" in lost.output(0)


def test_without_evidence_nothing_is_compared(lost: Driver) -> None:
    results = json.loads((lost.workspace / "results.json").read_text())
    assert results["evidence"] == "none" and not results["baselines"]
    assert any("evidence none" in verdict["text"] for verdict in results["verdicts"])
    assert "random initialisation" not in lost.output(0)


def test_password_of_an_unreachable_database_is_not_shown(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = "postgresql+psycopg2://user:s3cr3tword@127.0.0.1:1/none"
    monkeypatch.setenv("ESPALIER_STORAGE", url)
    assert main(Driver(tmp_path / "study", corpus).arguments()) == 2
    said = "".join(capfd.readouterr())
    assert "s3cr3tword" not in said
    assert said.strip().splitlines()[-1].startswith("error: ")

"""A study at experiment trackers: a run for each trial and each full run, and one for the whole.

All is sent by the driver, which is told everything, so that workers on other nodes need neither
the trackers nor their keys.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from common.fingerprint import fingerprint
from common.trackers import SafeTrackers, Values
from distill.recipes import CurvePoint, RunProgress
from pruning import AXES
from search.database.attributes import ANCHOR, ERROR, PARAMETERS
from search.database.trial_facts import architecture_of, latest_by_origin, origin_of, progress_of
from search.results.results import Results
from search.study.watching import TrialWatcher
from search.workers.full_runs import FullResult

STUDY = "study"
"""Run of the whole study."""
OUTCOMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
}


class StudyTracking(TrialWatcher):
    """Sends every curve as it comes, and what came of the study at its end."""

    def __init__(
        self, trackers: SafeTrackers, key: str, *, name: str, facts: Values, driver: str = ""
    ):
        """`key` is the study's fingerprint, by which a resumed one finds its runs; `driver` tells
        apart several that share it, each of which has a run of the whole study."""
        self.trackers, self.key = trackers, key
        self.study = "-".join(filter(None, (key, STUDY, driver)))
        self._sent: dict[str, int] = {}
        """Tokens of the last point that a run was sent."""
        self._finished = 0
        self._best: float | None = None
        trackers.begin(self.study, name=name, facts=facts)

    def recall(self, trials: Sequence[FrozenTrial]) -> None:
        """Go on counting where earlier starts of the study left off."""
        ended = [each for each in latest_by_origin(trials).values() if each.state in OUTCOMES]
        done = [progress_of(each) for each in ended if each.state == TrialState.COMPLETE]
        self._finished = len(ended)
        self._best = min([progress.last.kl for progress in done if progress], default=None)

    def _run(self, name: str) -> str:
        return f"{self.key}-{name}"

    def _trial(self, trial: FrozenTrial) -> str:
        return self._run(f"trial-{origin_of(trial):04d}")

    def began(self, trial: FrozenTrial) -> None:
        """Begin its run, or go on with that of the trial that it goes on with."""
        shape, own = architecture_of(trial), trial.user_attrs
        facts: dict[str, str | float] = {"architecture": str(shape), "kind": "trial"}
        facts |= {axis: value for axis in AXES if (value := getattr(shape, axis))}
        facts |= {name: own[name] for name in (PARAMETERS, ANCHOR) if name in own}
        run, before = self._trial(trial), progress_of(trial)
        self.trackers.begin(run, name=f"trial-{trial.number:04d} {shape}", facts=facts)
        self._sent[run] = 0 if before is None else before.tokens

    def reported(self, trial: FrozenTrial) -> None:
        """Send the points of its curve that are new."""
        progress = progress_of(trial)
        if progress is not None:
            self._send(self._trial(trial), progress)

    def _send(self, run: str, progress: RunProgress) -> None:
        last = self._sent.get(run, 0)
        for point in progress.curve:
            if point.tokens > last:
                self.trackers.log(run, point.tokens, figures_of(point))
        self._sent[run] = progress.tokens

    def ended(self, trial: FrozenTrial) -> None:
        """End its run; the study's shows the best so far."""
        progress, own = progress_of(trial), trial.user_attrs
        summary: dict[str, str | float] = {"state": OUTCOMES.get(trial.state, trial.state.name)}
        if progress is not None:
            last = figures_of(progress.last) | {"seconds": progress.seconds}
            summary |= {f"final_{name}": value for name, value in last.items()}
        if ERROR in own:
            summary["error"] = own[ERROR]
        self.trackers.finish(self._trial(trial), summary, failed=trial.state == TrialState.FAIL)
        if trial.state == TrialState.FAIL:
            return
        if trial.state == TrialState.COMPLETE and progress is not None:
            kl = progress.last.kl
            self._best = kl if self._best is None else min(self._best, kl)
        self._finished += 1  # failed ones do not count, as in the study
        best = {} if self._best is None else {"best_kl": self._best}
        self.trackers.log(self.study, self._finished, {"trials": self._finished, **best})

    def full_run_ended(self, label: str, result: FullResult | None) -> None:
        """Send a full run: its whole curve, since only its slot saw it on its way."""
        run = self._run(f"full-{fingerprint(label)}")
        facts: dict[str, str | float] = {"kind": "full run"}
        if result is not None:
            facts |= {"architecture": str(result.run.architecture), "role": result.run.role}
        self.trackers.begin(run, name=label, facts=facts)
        if result is None:
            self.trackers.finish(run, {"state": "diverged"}, failed=True)
            return
        for point in result.curve:
            self.trackers.log(run, point.tokens, figures_of(point))
        means = result.selection.means()
        summary = {f"final_{name}": value for name, value in means.items()}
        seconds = {"final_seconds": result.seconds}
        self.trackers.finish(run, {"state": "complete", **summary, **seconds})

    def concluded(self, results: Mapping[str, Results], files: list[Path]) -> None:
        """End the study's run with its winners, by member; "" where there is no family."""
        summary: dict[str, str | float] = {}
        for member, found in results.items():
            begins = f"{member}_" if member else ""
            summary |= {begins + name: value for name, value in summary_of(found).items()}
        self.trackers.finish(self.study, summary, files=files)


def figures_of(point: CurvePoint) -> dict[str, float]:
    """Those of an evaluation; a loss is known where steps were taken."""
    return {
        name: value
        for name, value in point.to_dict().items()
        if name != "tokens" and value is not None
    }


def summary_of(results: Results) -> dict[str, str | float]:
    """The winner, and the baselines that it was held against, on the test split."""
    best, teacher = results.winners[0], results.teacher
    summary: dict[str, str | float] = {
        "winner": str(best.architecture),
        "winner_parameters": best.parameters,
        "winner_share_of_teacher": best.parameters / teacher.parameters,
        "winner_test_kl": best.test.kl.mean,
        "winner_test_ce": best.test.ce.mean,
        "teacher_test_ce": teacher.test.ce.mean,
    }
    for name, baseline in results.baselines.items():
        summary[f"{name.replace(' ', '_')}_test_kl"] = baseline.test.kl.mean
    return summary

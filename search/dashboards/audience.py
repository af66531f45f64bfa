"""Audience of a study: everybody who is told of it besides its database."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from common.trackers import SafeTrackers, open_trackers
from common.version import installed_version
from search.config.budget import BudgetConfig
from search.config.objectives import Objectives
from search.config.study import SearchConfig
from search.dashboards.gauges import StudyGauges
from search.dashboards.notes import TrialNotes, write_study_note
from search.dashboards.tracking import StudyTracking
from search.dashboards.winner_artifacts import keep_artifacts
from search.database.coordination import Coordination
from search.results.cards import shown_name
from search.results.results import Results
from search.study.queue import TrialQueue
from search.study.watching import TrialWatcher, Watchers
from search.workers.full_runs import FullResult
from workspace.layout import Workspace


@dataclass(frozen=True)
class Audience:
    """Notes and artifacts for optuna-dashboard, gauges for Prometheus, runs at trackers."""

    study: optuna.Study
    """The study that it is told of."""
    config: SearchConfig
    """Its settings."""
    workspace: Workspace
    """Where its artifacts go."""
    teacher: int
    """Parameters of the teacher."""
    tracking: StudyTracking | None
    """None where no tracker is asked for."""

    def of_trials(self, queue: TrialQueue) -> TrialWatcher:
        """Who is told of a student's trials; Ray must be up."""
        name = self.config.study if queue.member is None else f"{self.config.study} {queue.member}"
        objectives = Objectives.of(self.config.objectives)
        notes = TrialNotes(self.study, objectives=objectives, teacher=self.teacher)
        notes.correct(queue.trials(TrialState.FAIL))
        gauges = StudyGauges(name, self.config.trials, queue.trials)
        return Watchers([notes, gauges, *([self.tracking] if self.tracking else [])])

    @property
    def of_full_runs(self) -> Callable[[str, FullResult | None], None]:
        """Who is told of full runs."""
        return self.tracking.full_run_ended if self.tracking else _nobody

    def concluded(self, found: Sequence[tuple[Workspace, Results]]) -> None:
        """The study is finished: what came of it, by member, with the folder of its files."""
        winners: dict[str, str] = {}
        for outputs, results in found:
            count = len(results.winners)
            keep_artifacts(
                self.study,
                self.workspace.artifacts,
                outputs,
                winners=count,
                member=results.member,
            )
            best, member = results.winners[0], f" of {results.member}" if results.member else ""
            winners[f"winner{member}"] = (
                f"{best.architecture}, {best.parameters:,} parameters, test KL "
                f"{best.test.kl.mean:.4f}, in {outputs.best}"
            )
        _write(self.study, winners | facts_of(self.config))
        if self.tracking:
            files = [path for outputs, _ in found for path in _files(outputs) if path.is_file()]
            by_member = {results.member or "": results for _, results in found}
            self.tracking.concluded(by_member, files)


@contextmanager
def audience_of(
    coordination: Coordination,
    config: SearchConfig,
    workspace: Workspace,
    *,
    key: str,
    teacher: int,
) -> Iterator[Audience]:
    """Everybody whom a driver tells of its study, as long as the context lasts.

    `key` is its fingerprint, `teacher` has so many parameters. Raises SearchError where a tracker
    cannot be used.
    """
    study, facts = coordination.study, facts_of(config)
    # Of several drivers each tells of its own trials; no tracker takes one run from two of them.
    driver = coordination.token[:8] if coordination.shared else ""
    trackers = SafeTrackers(open_trackers(config.log_to, workspace.root, group=config.study))
    tracking = None
    if trackers:
        tracking = StudyTracking(trackers, key, name=config.study, facts=facts, driver=driver)
        tracking.recall(study.get_trials(deepcopy=False))
    _write(study, facts)
    try:
        yield Audience(study, config, workspace, teacher, tracking)
    finally:
        trackers.leave()


def facts_of(config: SearchConfig) -> dict[str, str]:
    """What the study is, by name, in words; no address of a database among them."""
    if config.family is not None:
        budget = f"family of {', '.join(f'{share:g}' for share in config.family)}"
    else:
        default = BudgetConfig()
        given = [
            f"{name} {value}"
            for name, value in vars(config.budget).items()
            if value is not None and value != getattr(default, name)
        ]
        budget = ", ".join(given)
    return {
        "teacher": shown_name(config.teacher),
        "budget": budget,
        "objectives": ", ".join(config.objectives),
        "trials": str(config.trials),
        "short run": f"{config.short_tokens:,} tokens",
        "full run": f"{config.full_tokens:,} tokens",
        "workspace": str(config.workspace),
        "espalier": installed_version(),
    }


def _write(study: optuna.Study, facts: dict[str, str]) -> None:
    """The study's note."""
    listed = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
    write_study_note(study, [f"## {study.study_name}", listed])


def _files(outputs: Workspace) -> list[Path]:
    """Files of a result that trackers keep."""
    return [outputs.report, outputs.trials_table, outputs.results]


def _nobody(label: str, result: FullResult | None) -> None:
    """Where no tracker is asked for."""

"""Notes of optuna-dashboard: what a trial is and what came of it; what the study is."""

from collections.abc import Iterable, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.config.objectives import Objectives
from search.database.attributes import (
    ANCHOR,
    CONTINUES,
    ERROR,
    INTERRUPTED,
    INTERRUPTIONS,
    PARAMETERS,
)
from search.database.optuna_internals import handle_of
from search.database.trial_facts import architecture_of, origin_of, progress_of
from search.study.watching import TrialWatcher

OWN = "\n\n---\n*Written by the search. What you write below this line stays.*"
"""Ends what is written here."""
RUNS = "It runs."
"""Of a trial that goes on."""
LEGEND = (
    "`L6 H192 A4/2 F240` is a student of 6 layers, hidden size 192, 4 query heads that share 2 KV "
    "heads, and feed-forward size 240."
)


class TrialNotes(TrialWatcher):
    """Writes the note of a trial when it begins and when it has ended."""

    def __init__(self, study: optuna.Study, *, objectives: Objectives, teacher: int):
        """`teacher` is its number of parameters."""
        self.study, self.objectives, self.teacher = study, objectives, teacher

    def correct(self, ended: Iterable[FrozenTrial]) -> None:
        """Write those of trials that ended while no driver could, such as by its own death."""
        from optuna_dashboard import get_note

        for trial in ended:
            if RUNS in get_note(handle_of(self.study, trial)):
                put_back = trial.user_attrs.get(ERROR, "").startswith(INTERRUPTED)
                self._write(trial, put_back=put_back)

    def began(self, trial: FrozenTrial) -> None:
        """What it is."""
        self._write(trial)

    def interrupted(self, trial: FrozenTrial) -> None:
        """That it goes on under another number."""
        self._write(trial, put_back=True)

    def ended(self, trial: FrozenTrial) -> None:
        """And what came of it."""
        self._write(trial)

    def _write(self, trial: FrozenTrial, *, put_back: bool = False) -> None:
        from optuna_dashboard import get_note, save_note

        handle = handle_of(self.study, trial)
        text = note_of(trial, self.objectives, teacher=self.teacher, put_back=put_back)
        save_note(handle, _kept(text, get_note(handle)))


def note_of(
    trial: FrozenTrial, objectives: Objectives, *, teacher: int, put_back: bool = False
) -> str:
    """The note of a trial, in Markdown; one that was `put_back` goes on under another number."""
    own = trial.user_attrs
    lines = [f"**{architecture_of(trial)}**"]
    if PARAMETERS in own:
        share = own[PARAMETERS] / teacher
        lines.append(f"{own[PARAMETERS]:,} parameters, {share:.1%} of the teacher's.")
    if ANCHOR in own:
        lines.append(f"Tried first, as *{own[ANCHOR]}*; all others are the sampler's.")
    if CONTINUES in own:
        lines.append(
            f"Goes on with trial {own[CONTINUES]}, which was interrupted "
            f"({own.get(INTERRUPTIONS, 0)} times counted; first trial {origin_of(trial)})."
        )
    if put_back:
        lines.append(f"It was put back, and goes on under a later number: {_reason(trial)}")
    else:
        lines.append(_outcome(trial, objectives))
    return "\n\n".join(lines)


def _outcome(trial: FrozenTrial, objectives: Objectives) -> str:
    """What came of a trial, or that it runs."""
    progress = progress_of(trial)
    if trial.state == TrialState.RUNNING:
        return RUNS
    if trial.state == TrialState.FAIL:
        return f"It failed: {_reason(trial)}"
    if progress is None:
        return f"It is {trial.state.name.lower()}."
    last = progress.last
    scored = (
        f"selection KL {last.kl:.4f} nats per token, top-1 agreement {last.top1_agreement:.1%}, "
        f"cross-entropy {last.ce:.4f}"
    )
    spent = f"after {progress.tokens:,} tokens in {progress.seconds:,.0f} s"
    if trial.state == TrialState.PRUNED:
        return f"It was stopped early {spent}, behind others at as many tokens: {scored}."
    return f"It came to its end {spent}: {scored}.{_others(trial, objectives)}"


def _reason(trial: FrozenTrial) -> str:
    """Why it failed."""
    return str(trial.user_attrs.get(ERROR, "the reason is not known"))


def _others(trial: FrozenTrial, objectives: Objectives) -> str:
    """Values of further objectives."""
    if not objectives.several or trial.values is None:
        return ""
    values = zip(objectives.names, trial.values, strict=True)
    return f" Objectives: {', '.join(f'{name} {value:,.6g}' for name, value in values)}."


def write_study_note(study: optuna.Study, lines: Sequence[str]) -> None:
    """Say on the study's page what it is, or what came of it."""
    from optuna_dashboard import get_note, save_note

    save_note(study, _kept("\n\n".join([*lines, LEGEND]), get_note(study)))


def _kept(text: str, before: str) -> str:
    """The text in place of that of before, with what a reader added to it."""
    added = before.partition(OWN)[2] if OWN in before else before and f"\n\n{before}"
    return text + OWN + added

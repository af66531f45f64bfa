"""Learning curves for optuna-dashboard, which draws its own of one objective only."""

from collections.abc import Sequence
from typing import Any

from optuna import create_study
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.dashboards.attributes import is_student
from search.database.trial_facts import architecture_of, last_by_origin, progress_of

PLOT = "learning-curves"
"""Id of the figure in the page."""
NAMED = 10
"""Curves at most that are named beside the figure; each is under the pointer."""


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """Selection KL by tokens; Optuna itself takes none where there are several objectives."""
    progress = progress_of(trial)
    return {} if progress is None else {point.tokens: point.kl for point in progress.curve}


def plot_attributes(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """System attributes of a study whose page has a figure of the curves of all its trials."""
    import plotly.graph_objects as go
    from optuna_dashboard import save_plotly_graph_object

    figure = go.Figure()
    for trial in last_by_origin(trials).values():
        if not is_student(trial) or not (curve := curve_of(trial)):
            continue
        stopped = trial.state not in (TrialState.COMPLETE, TrialState.RUNNING)
        figure.add_scatter(
            x=list(curve),
            y=list(curve.values()),
            name=f"trial {trial.number} {architecture_of(trial)}",
            mode="lines+markers",
            line={"dash": "dot"} if stopped else {},
        )
    figure.update_layout(
        template="plotly_white",
        showlegend=len(figure.data) <= NAMED,
        legend={"orientation": "h", "y": -0.25},
        margin={"l": 60, "r": 20, "t": 60, "b": 40},
        title="Learning curves (dotted: stopped early)",
        xaxis_title="training tokens",
        yaxis_title="selection KL, nats per token",
        yaxis_type="log",
    )
    memory = InMemoryStorage()  # takes the attributes in optuna-dashboard's own form
    save_plotly_graph_object(create_study(storage=memory), figure, graph_object_id=PLOT)
    (written,) = memory.get_all_studies()
    return written.system_attrs

"""Learning curves for optuna-dashboard, which draws its own of one objective only."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.database.trial_facts import architecture_of, last_by_origin, progress_of

PLOT = "learning-curves"
"""Id of the figure in the page."""


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
        curve = curve_of(trial)
        if not curve:
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
        title="Learning curves (dotted: stopped early)",
        xaxis_title="training tokens",
        yaxis_title="selection KL, nats per token",
        yaxis_type="log",
    )
    page = optuna.create_study()  # in memory: it takes the attributes as optuna-dashboard has them
    save_plotly_graph_object(page, figure, graph_object_id=PLOT)
    return dict(page.system_attrs)

"""What the winners cost to hold and to run: counted, and where latency was asked for, measured."""

from collections.abc import Callable
from typing import Any

from search.accounts import Accounts
from search.amounts import COUNTED, shown_quantity
from search.latency import TIMES
from search.timing import check


def winner_costs(accounts: Accounts, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Per winner, by name of the cost: its amount; of a time, predicted and measured again.

    A time of a table that the user brought is not measured: it may be of another machine.
    """
    model = accounts.facts.record.space.costs
    own_table = accounts.inputs.config.budget.latency_table is None
    rows = []
    for winner in accounts.winners:
        amounts = model.costs(winner.architecture, COUNTED)
        row: dict[str, Any] = {name: float(amount) for name, amount in amounts.items()}
        if model.latency is not None:
            predicted = model.latency.predict(winner.architecture)
            setting = model.latency.setting
            measured = {}
            if own_table and setting is not None:
                say(f"latency: measuring {winner.architecture}")
                measured = check(model.config, winner.architecture, setting=setting)
            row["latency"] = {
                name: {"predicted": float(predicted[name]), "measured": measured.get(name)}
                for name in TIMES
                if name in predicted
            }
        rows.append(row)
    return rows


def cost_lines(costs: list[dict[str, Any]]) -> list[str]:
    """The same of the best one, in words."""
    best = dict(costs[0])
    latency = best.pop("latency", {})
    lines = ["costs: " + ", ".join(shown_quantity(name, best[name]) for name in best)]
    for name, times in latency.items():
        text = f"{name}: predicted {times['predicted']:.2f} ms"
        if times["measured"] is not None:
            off = times["predicted"] / times["measured"] - 1
            text += f", measured again {times['measured']:.2f} ms ({off:+.1%})"
        lines.append(text)
    return lines

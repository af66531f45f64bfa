"""Costs of the winner in words."""

from search.config.units import shown_quantity
from search.results.results import ServingCosts


def cost_lines(costs: list[ServingCosts]) -> list[str]:
    """Those of the best winner, in words."""
    best = costs[0]
    counted = (shown_quantity(name, amount) for name, amount in best.counted.items())
    lines = ["costs: " + ", ".join(counted)]
    for name, time in best.latency.items():
        text = f"{name}: predicted {time.predicted:.2f} ms"
        if time.measured is not None:
            off = time.predicted / time.measured - 1
            text += f", measured again {time.measured:.2f} ms ({off:+.1%})"
        lines.append(text)
    return lines

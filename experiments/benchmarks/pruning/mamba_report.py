"""The tables of `mamba.py`, from its rows."""

from pathlib import Path

import pandas as pd

from pruning.importance import DEFAULT_SSM_SCORE

DEFAULTS = {
    "ssm_heads": DEFAULT_SSM_SCORE,
    "ssm_head_dim": DEFAULT_SSM_SCORE,
    "ssm_state": DEFAULT_SSM_SCORE,
    "axes": "ffn",
}
"""Group -> what its methods are compared with, seed by seed; of norms, the factor."""
FACTOR = "factor"


def report(rows: Path, output: Path) -> None:
    """Write mamba.md to `output`, and print it."""
    table = pd.read_json(rows, lines=True)
    text = "\n\n".join(_table(table, group) for group in table.group.unique())
    (output / "mamba.md").write_text(text + "\n")
    print(text)


def _with_factor(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """The rows of a group; of norms with those of the scores that have the factor."""
    own = table[table.group == group]
    axis = group.removeprefix("norm ")
    if axis in DEFAULTS and axis != group:
        scored = table[(table.group == axis) & (table.method == DEFAULTS[axis])]
        own = pd.concat([own, scored.assign(method=FACTOR)])
    return own


def _table(table: pd.DataFrame, group: str) -> str:
    """KL before and after, with the standard deviation over seeds, and the difference from the
    default on the same seeds."""
    own = _with_factor(table, group)
    after = own.pivot(index="seed", columns="method", values="kl_after")
    default = DEFAULTS.get(group, FACTOR)
    compared = default in after
    lines = [
        f"### {group}\n",
        f"| | shape | parameters | KL before | KL after | after, less that of {default} | seeds |",
        "|---" * 7 + "|",
    ]
    for method in after.mean().sort_values().index:
        chosen = own[own.method == method]
        change = ""
        if compared and method != default:
            each = (after[method] - after[default]).dropna()
            change = f"{each.mean():+.4f}{_spread(each)}"
        lines.append(
            f"| {method} | {chosen.architecture.iloc[0]} | {chosen.parameters.iloc[0]:,} "
            f"| {chosen.kl_before.mean():.3f} | {chosen.kl_after.mean():.4f}"
            f"{_spread(chosen.kl_after)} | {change} | {len(chosen)} |"
        )
    return "\n".join(lines)


def _spread(values: "pd.Series[float]") -> str:
    """The standard deviation over seeds; nothing of one seed."""
    return f" ± {values.std():.4f}" if len(values) > 1 else ""

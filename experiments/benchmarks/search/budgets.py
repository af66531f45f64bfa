"""Every budget and objective once, on the demo's teacher: does the winner meet what was asked for?

    python experiments/benchmarks/search/budgets.py

Small searches (four trials of 8,192 tokens each), a minute or two for each, in runs/budgets. Prints
for each: the options, the winner, what it costs, and of latencies what was predicted and what was
measured again. The last line is JSON.
"""

import argparse
import json
import os
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from experiments.benchmarks.demo_setting import TEACHER
from experiments.run_search import main as run_search
from pruning import Checkpoint, architecture_of
from search.results import Results, read_results
from search.space import check, setting_here

WORKSPACE = ROOT / "runs" / "budgets"
SMALL = [
    "--config=experiments/demo/demo.yaml",
    f"--teacher={TEACHER}",
    f"--corpus={sysconfig.get_path('stdlib')}",
    f"--workspace={WORKSPACE}",
    "--tasks=experiments/demo/tasks",
    "--task_questions=40",
    "--trials=4",
    "--short_tokens=8192",
    "--full_tokens=8192",
    "--training.batch=2",
    "--winners=1",
    "--ties=0",
    "--seeds=1",
]


def asked_for() -> list[tuple[str, ...]]:
    """The options of each search; latencies in terms of the teacher's own."""
    config = Checkpoint(TEACHER).config
    setting = setting_here(
        "cpu", 1, batch=1, context=config.max_position_embeddings, dtype="bfloat16"
    )
    teacher = check(config, architecture_of(config), setting=setting)
    decode, rate = 0.8 * teacher["decode_ms"], 1250 / teacher["decode_ms"]
    prefill = 1250 * setting.context / teacher["prefill_ms"]
    return [
        ("--budget.parameters=0.5",),
        ("--budget.parameters=[0.3, 0.4]",),
        ("--budget.non_embedding=0.5",),
        ("--budget.active=1.5M",),
        ("--budget.memory=4MB", "--budget.batch=4"),
        ("--budget.flops=0.5",),
        (f"--budget.decode_ms={decode:.3g}",),
        (f"--budget.prefill_tokens_per_second={prefill:.3g}",),
        (f"--budget.decode_tokens_per_second={rate:.3g}", "--budget.parameters=0.6"),
        ("--objectives=[kl, parameters]",),
        ("--objectives=[kl, memory, decode_ms]",),
        ("--objectives=[kl, task:next_line]",),
    ]


def row_of(asked: tuple[str, ...], results: Results) -> dict[str, Any]:
    costs = results.costs[0]
    return {
        "asked": " ".join(asked),
        "budget": results.budget,
        "winner": str(results.winners[0].architecture),
        "latency": {name: asdict(time) for name, time in costs.latency.items()},
        "costs": costs.counted,
        "front": len(results.front.front) if results.front else None,
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    os.chdir(ROOT)
    rows = []
    for asked in asked_for():
        study = "".join(c if c.isalnum() else "-" for c in " ".join(asked)).strip("-")
        options = ["--budget.parameters=null", *asked, f"--study={study}"]
        status = run_search([*SMALL, *options])
        if status:
            sys.exit(status)
        results = read_results(WORKSPACE / "results.json")
        assert results is not None, "the search has just written them"
        rows.append(row_of(asked, results))
    for row in rows:
        shown = ", ".join(f"{name} {value:,.4g}" for name, value in row["costs"].items())
        print(f"{row['asked']}\n    {row['budget']}\n    {row['winner']}: {shown}")
        for name, times in row["latency"].items():
            off = times["predicted"] / times["measured"] - 1
            print(
                f"    {name}: predicted {times['predicted']:.3f}, measured again "
                f"{times['measured']:.3f} ({off:+.1%})"
            )
        if row["front"]:
            print(f"    a front of {row['front']}")
    print(json.dumps({"benchmark": "budgets", "rows": rows}))


if __name__ == "__main__":
    main()

"""A family of three students of the demo's teacher, against training each from random weights.

    python experiments/benchmarks/search/family.py [any option of experiments/run_search.py]

Runs the search of `--family 0.75 0.5 0.25` on the demo's teacher and corpus (about an hour on two
cores; goes on where it was stopped) and prints what each member reached and cost, beside its own
shape from random weights with four times the tokens; the compute of the family by the formula of
Minitron (arXiv 2407.14679), and with everything that the formula leaves out. The figure goes to
docs/family.png.
"""

import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import plotly.graph_objects as go

from common.errors import require
from experiments.benchmarks.demo_setting import TEACHER
from experiments.benchmarks.search.replays.replay_report import write_picture
from experiments.run_search import main as run_search
from pruning import Checkpoint, architecture_of, forward_flops
from pruning.families import TRAINING_PASSES
from search.config import RANDOM_INITIALISATION
from search.report import FamilyResult, MemberResult
from search.results import TOTAL, TRIALS, Cost, Results, StudentResult, from_json, read_results

WORKSPACE = ROOT / "runs" / "family"
SCRATCH = 4
"""Tokens of a run from random weights, for each token of a full distillation."""
FULL_TOKENS = 262_144
TEACHER_TOKENS = 67_174_400
"""What the demo's teacher was trained on (experiments/demo/teacher/README.md)."""
OPTIONS = [
    "--config=experiments/demo/demo.yaml",
    f"--teacher={TEACHER}",
    f"--corpus={sysconfig.get_path('stdlib')}",
    f"--workspace={WORKSPACE}",
    "--study=family",
    "--family=[0.75, 0.5, 0.25]",
    "--budget.parameters=null",
    f"--scratch_tokens={SCRATCH * FULL_TOKENS}",
    f"--full_tokens={FULL_TOKENS}",
    "--trials=12",
    "--winners=1",
    "--ties=0",
    "--seeds=1",
    "--tasks=null",
]


@dataclass(frozen=True)
class FamilyRatio:
    """Compute of a family all trained from scratch, for each unit that pruning it takes."""

    training_only: float
    """Training FLOPs of the students alone, as savings are mostly published."""
    complete: float
    """With the teacher's passes, evaluation and the search."""


def family_ratio(
    scratch_flops: Sequence[float],
    tokens_ratios: Sequence[float],
    *,
    teacher_flops: float,
    evaluation_flops: float,
    search_flops: float,
) -> FamilyRatio:
    """A family of sizes, each from scratch, against the largest from scratch and the rest pruned.

    `scratch_flops` are the training FLOPs of each member from scratch, largest first, in any unit;
    `tokens_ratios`, one for each member after the first, say how many times the tokens it takes
    from scratch. Minitron (arXiv 2407.14679) gives (4.4 + 2.5 + 1.2) / (4.4 + 2.5/40 + 1.2/40) =
    1.8, without teacher and search. The other three are of all pruned members together and in the
    same unit: FLOPs of the teacher, of evaluation, and of the search's students.
    """
    require(
        len(tokens_ratios) == len(scratch_flops) - 1 and len(tokens_ratios) > 0,
        f"a family of {len(scratch_flops)} has {len(tokens_ratios)} ratios of tokens; give one for "
        "each member after the largest, of which there must be one",
    )
    require(min(*scratch_flops, *tokens_ratios) > 0, "FLOPs and ratios of tokens must be above 0")
    overhead = (teacher_flops, evaluation_flops, search_flops)
    require(min(overhead) >= 0, f"FLOPs are {overhead}; none can be below 0")
    distilled = (f / r for f, r in zip(scratch_flops[1:], tokens_ratios, strict=True))
    pruned = scratch_flops[0] + sum(distilled)
    whole = sum(scratch_flops)
    return FamilyRatio(whole / pruned, whole / (pruned + sum(overhead)))


def main() -> None:
    os.chdir(ROOT)
    status = run_search([*OPTIONS, *sys.argv[1:]])
    if status:
        sys.exit(status)
    found = json.loads((WORKSPACE / "family.json").read_text())
    members = from_json(FamilyResult, found).members
    paths = [WORKSPACE / "family" / str(member.name) / "results.json" for member in members]
    results = [known for path in paths if (known := read_results(path))]
    for line in [*table(members, results), *compute(members, results)]:
        print(line)
    write_picture(figure(results), ROOT / "docs" / "family.png")
    print(json.dumps({"benchmark": "family", **found}))


def table(members: list[MemberResult], results: list[Results]) -> list[str]:
    """Quality, tokens and FLOPs of every member, as Markdown."""
    lines = [
        "| member | architecture | parameters | cut from | test KL | uniform shrink | from random "
        f"weights, {SCRATCH} x tokens | tokens, search included | FLOPs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for member, found in zip(members, results, strict=True):
        scratch = found.baselines[RANDOM_INITIALISATION].test.kl.mean
        total = found.winner_ledgers[0][TOTAL]
        lines.append(
            f"| {member.name} | {member.architecture} | {member.parameters:,} | "
            f"{member.cut_from} | {member.kl.mean:.4f} | {member.uniform_kl} | {scratch:.4f} | "
            f"{total.tokens:,.0f} | {total.flops:.3g} |"
        )
    return lines


def compute(members: list[MemberResult], results: list[Results]) -> list[str]:
    """The family's compute against training every size: published formula, and all of it."""
    config = Checkpoint(TEACHER).config
    shapes = [architecture_of(config), *(member.architecture for member in members)]
    block = results[0].training.block
    per_token = [TRAINING_PASSES * float(forward_flops(config, shape, block)) for shape in shapes]
    costs = [found.winner_ledgers[0] for found in results]  # without what is only evidence
    spent = Cost.sum(cost[TOTAL] for cost in costs)
    overhead = {
        "teacher_flops": spent.teacher_flops,
        "evaluation_flops": spent.evaluation_flops,
        "search_flops": float(sum(cost[TRIALS].student_flops for cost in costs)),
    }
    as_long = TEACHER_TOKENS / FULL_TOKENS
    published = family_ratio(
        [TEACHER_TOKENS * flops for flops in per_token], [as_long] * len(members), **overhead
    )
    scratch = [member.scratch for member in members if member.scratch]
    reached = [one.scratch_tokens or one.measured_tokens for one in scratch]
    bound = all(one.reached for one in scratch)
    equal = family_ratio(
        [
            TEACHER_TOKENS * per_token[0],
            *(tokens * flops for tokens, flops in zip(reached, per_token[1:], strict=True)),
        ],
        [tokens / FULL_TOKENS for tokens in reached],
        **overhead,
    )
    least = "" if bound else "at least "
    return [
        f"as published (each size from scratch on the teacher's {TEACHER_TOKENS:,} tokens against "
        f"distilling on {FULL_TOKENS:,}; training of students only): {published.training_only:.2f}"
        " (Minitron: 1.8)",
        f"the same with teacher passes, evaluation and the search: {published.complete:.2f}",
        "at equal quality (from random weights only until each size is as good as its distilled "
        f"student): {least}{equal.training_only:.3f}, with everything {least}{equal.complete:.3f}",
        "the members alone at equal quality: "
        f"{least}{sum(t * f for t, f in zip(reached, per_token[1:], strict=True)):.3g} FLOPs from "
        f"random weights, {spent.flops:.3g} as searched and distilled",
    ]


def figure(results: list[Results]) -> go.Figure:
    """Selection KL against tokens: distilled from a cut, and from random weights."""
    drawn = go.Figure()
    colours = ("#4a7c59", "#c06030", "#35618e", "#8a5a9e")
    for found, colour in zip(results, colours, strict=False):
        name = found.member
        runs: dict[str, tuple[StudentResult, str]] = {
            f"{name}: cut and distilled": (found.winners[0], "solid"),
            f"{name}: from random weights": (found.baselines[RANDOM_INITIALISATION], "dot"),
        }
        for label, (student, dash) in runs.items():
            points = student.curve
            drawn.add_scatter(
                x=[point.tokens for point in points],
                y=[point.kl for point in points],
                mode="lines+markers",
                name=label,
                line={"dash": dash, "color": colour},
            )
    drawn.update_layout(
        template="plotly_white",
        xaxis_title="tokens",
        yaxis_title="KL to the teacher, selection split, nats per token",
        width=900,
        height=520,
    )
    drawn.update_xaxes(type="log")
    drawn.update_yaxes(type="log")
    return drawn


if __name__ == "__main__":
    main()

"""Seconds in which the mixed-integer programme chooses the blocks of an 80-layer student.

    taskset -c 0 python experiments/benchmarks/per_layer/programme.py [--seeds 3] [--gap 1e-3]

The library has the sizes of Llama-3.1-70B's, 54 variants a layer: 6 of attention (8, 4, 2, 1 KV
groups, one linear map, none) x 9 of the FFN (100 to 10 %, one linear map, none), as in the paper
(arXiv 2411.19146). Scores are drawn: they rise with what is taken away, by an importance that is
each layer's own, with noise. Memory is at most 70 % and the time of a decoding step at most 50 % of
the teacher's; ten solutions differ in 16 layers or more. The goal is under 60 s on one core for all
of them. Beside it, what the controls lose inside the same budget.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np

from common.errors import SearchError
from search.programme import CONTROLS, Programme, Solution, SolverSettings, Variant, distance, solve
from search.space import Bounds, Budget

GOAL = 60.0
"""Seconds for all solutions."""
HIDDEN, FFN, HEAD, GROUPS, VOCABULARY = 8192, 28_672, 128, 8, 128_256
BATCH, CONTEXT, BYTES = 64, 2048, 2
BYTES_PER_MS = 3.35e9
"""Memory bandwidth of an H100: a decoding step reads all weights and the cache once."""
START_MS = 0.01
"""Of the kernels of a sub-block."""
LINEAR = -1
"""Stands for a sub-block that is replaced by one linear map."""
ATTENTIONS = (8, 4, 2, 1, LINEAR, 0)
FFNS = (1.0, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1, LINEAR, 0)
LOSSES = (
    (0.0, 0.002, 0.004, 0.007, 0.015, 0.02),
    (0.0, 0.001, 0.003, 0.01, 0.02, 0.025, 0.03, 0.035, 0.05),
)
"""KL of one replaced sub-block of a layer of mean importance, in nats per token."""


@dataclass(frozen=True)
class Size:
    """What a sub-block costs."""

    parameters: float
    cache: float
    """Bytes of its KV cache."""

    @property
    def memory(self) -> float:
        """Bytes."""
        return BYTES * self.parameters + self.cache

    @property
    def decode_ms(self) -> float:
        """Milliseconds of one decoding step."""
        return self.memory / BYTES_PER_MS + START_MS * (self.parameters > 0)


def attention(groups: int) -> Size:
    """Attention of so many KV groups, with all query heads."""
    if groups == LINEAR:
        return Size(HIDDEN**2, 0)
    if groups == 0:
        return Size(0, 0)
    keys = groups * HEAD
    return Size(2 * HIDDEN * (HIDDEN + keys), 2 * keys * BYTES * BATCH * CONTEXT)


def ffn(share: float) -> Size:
    """FFN of a share of the width."""
    return Size(HIDDEN**2 if share == LINEAR else 3 * HIDDEN * round(share * FFN), 0)


def costs_of(*sizes: Size) -> dict[str, float]:
    """Costs of what stands together."""
    names = ("parameters", "memory", "decode_ms")
    return {name: float(sum(getattr(size, name) for size in sizes)) for name in names}


def library(layers: int, seed: int) -> list[list[Variant]]:
    """Variants of every layer; the first is the teacher's own block, whose score is 0."""
    generator = np.random.default_rng(seed)
    important = 1 + 3 * np.exp(-np.arange(layers) / 3)  # the first layers matter most
    made = []
    for factor in important:
        of_attention, of_ffn = factor * generator.lognormal(0, 0.7, 2)
        layer = []
        for (i, groups), (j, share) in product(enumerate(ATTENTIONS), enumerate(FFNS)):
            loss = of_attention * LOSSES[0][i] + of_ffn * LOSSES[1][j]
            noisy = loss * generator.lognormal(0, 0.1) + 1e-4 * abs(generator.normal())
            full = groups in (GROUPS, 0) and share in (1.0, 0)
            costs = costs_of(attention(groups), ffn(share))
            layer.append(Variant(noisy if i or j else 0.0, costs, full))
        made.append(layer)
    return made


def programme_of(layers: list[list[Variant]], memory: float, decode: float) -> Programme:
    """The programme under shares of the teacher's memory and time."""
    outside = costs_of(Size(2 * VOCABULARY * HIDDEN, 0))
    teacher = {
        name: fixed + sum(layer[0].costs[name] for layer in layers)
        for name, fixed in outside.items()
    }
    limits = [("memory", memory), ("decode_ms", decode)]
    bounds = tuple(Bounds(cost, share * teacher[cost]) for cost, share in limits)
    setting = f"batch {BATCH}, context {CONTEXT}, bfloat16"
    return Programme.of(layers, budget=Budget(bounds, 0.05, setting), fixed=outside)


def timed(programme: Programme, settings: SolverSettings) -> Iterator[tuple[Solution, float]]:
    """Every solution, and the seconds that it took."""
    found: list[tuple[Solution, float]] = []
    began = time.perf_counter()

    def keep(solution: Solution) -> None:
        nonlocal began
        found.append((solution, time.perf_counter() - began))
        began = time.perf_counter()

    ended = solve(programme, settings, keep=keep).ended
    if ended:
        print(f"note: {ended}")
    yield from found


def measure(programme: Programme, settings: SolverSettings, seed: int) -> dict[str, Any]:
    """Print the solutions and the controls of one library; their figures."""
    print(f"library {seed}: {programme.layers} layers x {programme.scores.shape[1]} variants")
    print(f"{'':>24} {'seconds':>8} {'KL':>8} {'gap %':>7} {'proven':>7} {'differs in':>11}")
    before: list[Solution] = []
    seconds = []
    for solution, spent in timed(programme, settings):
        apart = [distance(solution.choice, other.choice) for other in before]
        gap = "?" if solution.gap is None else f"{100 * solution.gap:.3f}"
        print(
            f"{len(before) + 1:>24} {spent:8.2f} {solution.score:8.4f} {gap:>7} "
            f"{'yes' if solution.proven else 'no':>7} {min(apart) if apart else '':>11}"
        )
        before.append(solution)
        seconds.append(spent)
    controls: dict[str, float | None] = {}
    for name, choose in CONTROLS.items():
        began = time.perf_counter()
        try:
            control = choose(programme, settings, seed)
        except SearchError as problem:
            controls[name] = None
            print(f"{name:>24} {problem}")
            continue
        controls[name] = round(control.score, 5)
        print(f"{name:>24} {time.perf_counter() - began:8.2f} {control.score:8.4f}")
    return {
        "seconds": round(sum(seconds), 2),
        "slowest": round(max(seconds), 2),
        "kl": [round(solution.score, 5) for solution in before],
        "proven": sum(solution.proven for solution in before),
        "controls": controls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="libraries that are drawn")
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--memory", type=float, default=0.7, help="share of the teacher's")
    parser.add_argument("--decode", type=float, default=0.5, help="share of the teacher's")
    parser.add_argument("--solutions", type=int, default=10)
    parser.add_argument("--distance", type=int, help="layers in which solutions differ")
    parser.add_argument("--gap", type=float, default=1e-3)
    options = parser.parse_args()
    settings = SolverSettings(options.solutions, options.distance, options.gap)
    rows = []
    for seed in range(options.seeds):
        layers = library(options.layers, seed)
        programme = programme_of(layers, options.memory, options.decode)
        rows.append(measure(programme, settings, seed))
        print(f"{'all solutions':>24} {rows[-1]['seconds']:8.2f} (goal: under {GOAL:g})\n")
    print(json.dumps({"benchmark": "programme", "libraries": rows}))


if __name__ == "__main__":
    main()

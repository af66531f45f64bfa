"""Small random libraries of blocks, and all their combinations one by one."""

from itertools import product

import numpy as np

from search.programme import Choice, Programme, Variant, distance
from search.space.budget import Bounds, Budget

COSTS = ("parameters", "memory", "decode_ms")
SCALES = {"parameters": 1e6, "memory": 1e10, "decode_ms": 1.0}
FIXED = {"parameters": 123_457.0, "memory": 987_654_321.0, "decode_ms": 0.125}


def budget_of(
    limits: dict[str, float | tuple[float | None, float]], tolerance: float | None = None
) -> Budget:
    """At most so much of each cost, or a band."""
    ends = {c: limit if isinstance(limit, tuple) else (None, limit) for c, limit in limits.items()}
    bounds = tuple(Bounds(cost, most, least) for cost, (least, most) in ends.items())
    return Budget(bounds, tolerance, "batch 1, context 32, bfloat16")


def random_layers(
    generator: np.random.Generator, *, layers: int, variants: tuple[int, int]
) -> list[list[Variant]]:
    """Variants whose score is the higher the less they cost, but for noise. Costs are exact:
    integers, and eighths of milliseconds."""
    made = []
    for _ in range(layers):
        count = int(generator.integers(*variants, endpoint=True))
        sizes = np.sort(generator.random(count))[::-1] * generator.uniform(0.5, 2)
        scores = np.maximum(0, 1 - sizes) + 0.2 * generator.random(count)
        made.append(
            [
                Variant(
                    float(score),
                    {
                        "parameters": float(round(1e6 * size)),
                        "memory": float(round(1e10 * size * generator.uniform(0.8, 1.2))),
                        "decode_ms": float(round(80 * size * generator.uniform(0.5, 1.5))) / 8,
                    },
                    full_or_left_out=place in (0, count - 1),
                )
                for place, (score, size) in enumerate(zip(scores, sizes, strict=True))
            ]
        )
    return made


def random_programme(
    seed: int, *, layers: int = 4, variants: tuple[int, int] = (3, 4)
) -> Programme:
    """A library and a budget of one to three limits, of which some have a lower end."""
    generator = np.random.default_rng(seed)
    made = random_layers(generator, layers=layers, variants=variants)
    limited = generator.choice(COSTS, generator.integers(1, 3, endpoint=True), replace=False)
    limits: dict[str, float | tuple[float | None, float]] = {}
    for cost in map(str, limited):
        # a limit that some combination meets to the last byte
        some = [layer[generator.integers(len(layer))].costs[cost] for layer in made]
        limits[cost] = FIXED[cost] + sum(some)
    tolerance = None
    if seed % 4 == 1:
        tolerance = 0.005
    if seed % 4 == 2:
        cost, most = next(iter(limits.items()))
        assert isinstance(most, float)
        limits[cost] = (0.8 * most, most)
    return Programme.of(made, budget=budget_of(limits, tolerance), fixed=FIXED)


def combinations(programme: Programme) -> list[tuple[float, Choice]]:
    """Every combination inside the budget, the best first."""
    offered = [np.flatnonzero(row).tolist() for row in programme.offered]
    inside = []
    for choice in product(*offered):
        costs = {
            name: np.asarray(
                programme.fixed[name] + sum(values[i, j] for i, j in enumerate(choice))
            )
            for name, values in programme.costs.items()
        }
        if programme.budget.holds(costs):
            inside.append((sum(programme.scores[i, j] for i, j in enumerate(choice)), choice))
    return sorted(inside)


def one_by_one(programme: Programme, *, solutions: int, apart: int) -> list[Choice]:
    """The best combination, then each time the best that is apart from all before."""
    found: list[Choice] = []
    for _, choice in combinations(programme):
        if len(found) == solutions:
            break
        if all(distance(choice, other) >= apart for other in found):
            found.append(choice)
    return found

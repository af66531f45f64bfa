"""Solutions of the programme of every depth, and the controls that they are held against."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from common.errors import SearchError
from common.files import write_file_atomically
from common.fingerprint import fingerprint
from search.config.per_layer import PerLayerConfig
from search.per_layer.combinations import Combination
from search.per_layer.depths import Depth
from search.programme import CONTROLS, Programme, Solution, SolverSettings, solve

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Solving:
    """Solves the programme of a depth; each solution is kept as soon as it is found."""

    settings: PerLayerConfig
    """How many solutions, how far apart, how exactly, and which controls."""
    directory: Path
    """Where solutions are kept."""
    seed: int
    """Of the random control."""

    def solved(self, depth: Depth) -> tuple[list[Combination], list[str]]:
        """Its solutions, the best first, and why there are fewer than were asked for."""
        programme, settings = depth.programme, self._solver(depth)
        path = self.directory / f"programme-{_name(depth.programme, settings)}.json"
        found = _read(path)

        def keep(solution: Solution) -> None:
            found.append(solution)
            write_file_atomically(path, json.dumps([asdict(one) for one in found]) + "\n")

        solved = solve(programme, settings, earlier=tuple(found), keep=keep)
        cautions = programme.cautions()
        if solved.ended is not None:
            cautions.append(f"depth {len(depth.kept)}: {solved.ended}")
        return [self._combination(depth, one) for one in solved.solutions], cautions

    def controls(self, depth: Depth) -> tuple[list[Combination], list[str]]:
        """The controls of a depth, and why there are not all."""
        found, missing = [], []
        for name in self.settings.controls:
            try:
                chosen = CONTROLS[name](depth.programme, self._solver(depth), self.seed)
            except SearchError as problem:
                missing.append(f"no control {name}: {problem}")
                continue
            found.append(self._combination(depth, chosen, control=name))
        return found, missing

    def _solver(self, depth: Depth) -> SolverSettings:
        given = self.settings
        apart = max(1, ceil(given.distance * len(depth.kept)))
        return SolverSettings(given.solutions, apart, given.gap, given.time_limit)

    @staticmethod
    def _combination(
        depth: Depth, solution: Solution, *, control: str | None = None
    ) -> Combination:
        return Combination(
            architecture=depth.architecture(solution.choice),
            control=control,
            score=solution.score,
            proven=solution.proven,
            gap=solution.gap,
        )


def _name(programme: Programme, settings: SolverSettings) -> str:
    """Of everything that the solutions follow from."""
    tables = {name: values.tolist() for name, values in programme.costs.items()}
    return fingerprint(
        programme.scores.tolist(),
        [mask.tolist() for mask in programme.required],
        tables,
        dict(programme.fixed),
        str(programme.budget),
        asdict(settings),
    )


def _read(path: Path) -> list[Solution]:
    """The solutions of an earlier start."""
    try:
        rows: Sequence[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [Solution(**{**row, "choice": tuple(row["choice"])}) for row in rows]

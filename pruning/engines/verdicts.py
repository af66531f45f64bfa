"""Verdicts of engines: which of them take a student and compute it rightly.

The rules are rows of the table in pruning/engines/rules.py. docs/engines.md has what was tried. A
student whose layers differ is taken by none as it is, and by some as a copy in DeciLM's form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.engines.decilm import decilm_caution, why_not_as_decilm
from pruning.engines.programs import ENGINES
from pruning.engines.rules import RULES
from pruning.engines.spec import COMPUTING, LOADING, WINDOWS, Rule, Tie
from pruning.exports.padded import padded_layers, padded_shape
from pruning.exports.padding import stock_config
from pruning.families.architecture import Architecture, ArchitectureGrid, Sizes
from pruning.families.shapes import architecture_of
from pruning.importance.ordering import can_keep
from pruning.slicing.configuration import student_config


@dataclass(frozen=True)
class Served:
    """A teacher whose students some engines are to take, and what that leaves.

    Raises PruningError for an unknown engine and for one that has no such models.
    """

    config: PretrainedConfig
    """Of the teacher."""
    engines: tuple[str, ...] = ()
    """Names of the engines."""

    def __post_init__(self) -> None:
        for name in self.engines:
            if name not in ENGINES:
                raise PruningError(
                    f"--serve_with has {name!r}; it must be any of {', '.join(ENGINES)}"
                )
            reason = ENGINES[name].why_not(self.config.model_type)
            if reason:
                raise PruningError(f"--serve_with has {name}: {reason}; leave it out")

    @property
    def rules(self) -> list[Rule]:
        """Those that narrow. Of a window that an engine ignores is only spoken."""
        return [r for r in rules_of(self.config, self.engines) if r.breaks != WINDOWS]

    @property
    def ties(self) -> list[Tie]:
        """Sizes that follow from others."""
        return [rule.tie for rule in self.rules if rule.tie is not None]

    @property
    def multiples(self) -> dict[str, int]:
        """Axes whose sizes must be multiples of a number, with the number."""
        multiples: dict[str, int] = {}
        for rule in self.rules:
            for axis, multiple in (rule.rows.multiples(self.config) if rule.rows else {}).items():
                multiples[axis] = int(np.lcm(multiples.get(axis, 1), multiple))
        return multiples

    @property
    def places(self) -> torch.Tensor | None:
        """[places, layers], whether a layer may stand at a place; None where any may."""
        allowed = [rule.pattern.places(self.config) for rule in self.rules if rule.pattern]
        return torch.stack(allowed).all(0) if allowed else None

    @overload
    def holds(self, sizes: Architecture) -> bool: ...
    @overload
    def holds(self, sizes: ArchitectureGrid) -> NDArray[np.bool_]: ...
    def holds(self, sizes: Sizes[Any]) -> Any:
        """Whether all engines take these sizes, elementwise for a grid; where layers differ, as a
        DeciLM."""
        if isinstance(sizes, Architecture) and sizes.per_layer:
            return not any(why_not_as_decilm(name, self.config, sizes) for name in self.engines)
        holds: Any = self._keepable(sizes)
        for rule in self.rules:
            holds = holds & rule.holds(self.config, sizes)
        return holds

    def check(self, architecture: Architecture, kept: Sequence[int] | None = None) -> None:
        """Raises PruningError with the rule that a student breaks; `kept` are its layers where
        they are chosen already."""
        if architecture.per_layer:
            self._check_decilm(architecture)
            return
        for rule in self.rules:
            layers = f" of layers {', '.join(map(str, kept))}" if kept and rule.pattern else ""
            fine = rule.holds(self.config, architecture)
            if rule.pattern is not None:
                fine = (
                    self._keepable(architecture)
                    if kept is None
                    else rule.holds_for(self.config, kept)
                )
            if not fine:
                raise PruningError(
                    f"{architecture}{layers} is not for {rule.engine}, which needs {rule.needs} in "
                    f"{self.config.model_type} models: {rule.reason}"
                )

    def _check_decilm(self, architecture: Architecture) -> None:
        for name in self.engines:
            reason = why_not_as_decilm(name, self.config, architecture)
            if reason:
                raise PruningError(
                    f"{architecture} is not for {name}, which takes layers that differ only as "
                    f"DeciLM: {reason}"
                )

    def cautions(self) -> list[str]:
        """What does not narrow, and is to be known all the same."""
        whole = architecture_of(self.config)
        return [
            f"{rule.engine} needs {rule.needs}: {rule.reason}"
            for rule in rules_of(self.config, self.engines)
            if rule.breaks == WINDOWS and not rule.holds(self.config, whole)
        ]

    def _keepable(self, sizes: Sizes[Any]) -> Any:
        """Whether so many layers can be kept in the engines' patterns, elementwise."""
        places = self.places
        if places is None:
            return sizes.layers >= 1
        depths = range(len(places) + 1)
        table = np.array(
            [
                [can_keep(places, depth, contiguous=span) for depth in depths]
                for span in (False, True)
            ]
        )
        return table[sizes.contiguous, np.clip(sizes.layers, 0, len(places))]


@dataclass(frozen=True)
class Verdict:
    """Whether an engine takes a student."""

    engine: str
    """Name of the engine."""
    version: str
    """The one that was tried or read."""
    takes: bool
    """Whether it loads the student and computes the same."""
    reason: str
    """Why it does not, or what to know although it does; empty where there is nothing."""

    def __str__(self) -> str:
        if not self.reason:
            return f"{self.engine}: {'yes' if self.takes else 'no'}"
        return f"{self.engine}: {'yes, but' if self.takes else 'no,'} {self.reason}"


def engines_for(
    config: PretrainedConfig, architecture: Architecture, kept: Sequence[int]
) -> list[Verdict]:
    """Which engines take a student of these sizes that keeps these layers of the model, and why
    others do not. Of a written student: its own configuration and sizes, and all its layers.
    """
    if architecture.per_layer:
        return _of_copies(config, architecture, kept)
    verdicts = []
    for name, engine in ENGINES.items():
        reason = engine.why_not(config.model_type)
        if reason:
            verdicts.append(Verdict(name, engine.version, False, reason))
            continue
        broken = [
            rule
            for rule in rules_of(config, (name,))
            if not (rule.holds(config, architecture) and rule.holds_for(config, kept))
        ]
        takes = not any(rule.breaks in (LOADING, COMPUTING) for rule in broken)
        reason = "; ".join(f"it needs {rule.needs}: {rule.reason}" for rule in broken)
        verdicts.append(Verdict(name, engine.version, takes, reason))
    return verdicts


def decilm_verdicts(config: PretrainedConfig, architecture: Architecture) -> list[Verdict]:
    """Which engines take the copy as DeciLM of a student whose layers differ."""
    verdicts = []
    for name, engine in ENGINES.items():
        reason = why_not_as_decilm(name, config, architecture)
        takes = not reason
        reason = reason or decilm_caution(name, config, architecture)
        verdicts.append(Verdict(name, engine.version, takes, reason))
    return verdicts


def _of_copies(
    config: PretrainedConfig, architecture: Architecture, kept: Sequence[int]
) -> list[Verdict]:
    """Of a student whose layers differ: none takes it as it is, but some a copy."""
    padded = _taking_padded(config, architecture, kept)
    verdicts = []
    for decilm in decilm_verdicts(config, architecture):
        reason = "it has no layers that differ"
        if decilm.takes:
            reason = "only the copy that espalier export --form decilm writes"
            reason += f", {decilm.reason}" * bool(decilm.reason)
        elif decilm.engine in padded:
            reason = "only the copy that espalier export --form padded writes, at full cost"
        verdicts.append(Verdict(decilm.engine, decilm.version, False, reason))
    return verdicts


def _taking_padded(
    config: PretrainedConfig, architecture: Architecture, kept: Sequence[int]
) -> set[str]:
    """Names of the engines that take the padded copy."""
    stock = stock_config(student_config(stock_config(config), architecture, kept))
    try:
        padded_layers(stock, architecture)
    except PruningError:
        return set()
    verdicts = engines_for(stock, padded_shape(stock, architecture), range(architecture.layers))
    return {verdict.engine for verdict in verdicts if verdict.takes}


def engines_of(config: PretrainedConfig) -> list[Verdict]:
    """Which engines take a model as it is."""
    return engines_for(config, architecture_of(config), range(config.num_hidden_layers))


def engines_line(verdicts: Sequence[Verdict]) -> str:
    """The same in one line, engines of the same verdict together."""
    plain = [verdict.engine for verdict in verdicts if not verdict.reason]
    alike: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.reason:
            alike.setdefault(str(verdict).partition(": ")[2], []).append(verdict.engine)
    rest = [f"{', '.join(engines)}: {said}" for said, engines in alike.items()]
    return "; ".join([f"engines that take it: {', '.join(plain) or 'none as it is'}", *rest])


def rules_of(config: PretrainedConfig, engines: Sequence[str]) -> list[Rule]:
    """The rules that these engines have for models of this type."""
    return [r for r in RULES if r.engine in engines and config.model_type in r.model_types]

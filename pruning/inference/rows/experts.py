"""Experts of a type: how a loaded model runs one, and how they lie on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pruning.families.spec import Axes, gated_expert, plain_expert
from pruning.inference.proofs.search import Finding, Prover
from pruning.inference.tiny.precision import Float64

RUNS = (gated_expert, plain_expert)
"""Ways in which a module of experts may run one, tried on it."""
NEURONS, EXPERTS = "expert_ffn", "experts"


@dataclass(frozen=True)
class ExpertForm:
    """How the experts of a type are held and run."""

    module: str
    """Module of a layer that runs them; "" for a type without."""
    run: Any
    """The way in which it runs one, of `RUNS`; None where it is none of them."""
    together: frozenset[str]
    """Tensors on disk that hold the neurons of all experts."""

    @classmethod
    def of(cls, prover: Prover) -> "ExpertForm":
        """That of a tiny model."""
        tiny, layout = prover.tiny, prover.layout
        module = tiny.sites.expert_output.rpartition(".")[0]
        together = {
            name
            for name, axes in layout.axes.items()
            if tiny.growth.of_experts(name)
            and "{expert}" not in name
            and any(layout.has(NEURONS, dim) for dim in axes)
        }
        run = _run_of(tiny.layers, module, hidden=tiny.whole.hidden) if module else None
        return cls(module, run, frozenset(together))

    def axes(self, name: str, axes: Axes, prover: Prover) -> Axes:
        """Axes of a tensor on disk: neurons in full where it holds those of all experts."""
        if name not in self.together:
            return axes
        return tuple(
            f"all of {name}, dimension {dim}" if prover.layout.has(NEURONS, joined) else joined
            for dim, joined in enumerate(axes)
        )

    def findings(self, findings: Mapping[str, Finding]) -> dict[str, Finding]:
        """The findings, with experts in full where nothing can score or cut them."""
        result = dict(findings)
        if EXPERTS in findings and self.run is None:
            reason = "its experts run in a way that is not known, so that they cannot be scored"
            result |= {axis: _failed(findings, axis, reason) for axis in (EXPERTS, NEURONS)}
        elif NEURONS in findings and self.together:
            reason = "one tensor on disk holds the neurons of all experts"
            result[NEURONS] = _failed(findings, NEURONS, reason)
        return result


def _failed(findings: Mapping[str, Finding], axis: str, reason: str) -> Finding:
    before = findings.get(axis, Finding(axis))
    return replace(before, reason=before.reason or reason)


@torch.no_grad()
def _run_of(layers: list[Any], name: str, *, hidden: int) -> Any:
    for layer in layers:
        try:
            module = layer.get_submodule(name)
        except AttributeError:  # a layer of another kind
            continue
        return next((run for run in RUNS if _runs_so(module, run, hidden)), None)
    return None


def _runs_so(module: nn.Module, run: Any, hidden: int) -> bool:
    """Whether `run` says of single experts what the module does."""
    tokens = torch.randn(5, hidden, generator=torch.Generator().manual_seed(1)).double()
    try:
        with Float64():
            whole = module(tokens, torch.ones(5, 1).long(), torch.ones(5, 1))
            return torch.allclose(run(module, 1, tokens)[1], whole, rtol=1e-9, atol=1e-12)
    except Exception:  # a module that takes other arguments or has other tensors
        return False

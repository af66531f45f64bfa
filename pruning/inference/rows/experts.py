"""Experts of a type: how a loaded model runs one, so that it can be scored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pruning.families.spec import clamped_expert, gated_expert, plain_expert, transposed_expert
from pruning.inference.proofs.search import Finding, Prover
from pruning.inference.tiny.precision import Float64

RUNS = (gated_expert, transposed_expert, clamped_expert, plain_expert)
"""Ways in which a module of experts may run one, tried on it."""
NEURONS, EXPERTS = "expert_ffn", "experts"


@dataclass(frozen=True)
class ExpertForm:
    """How the experts of a type are run."""

    module: str
    """Module of a layer that runs them; "" for a type without."""
    run: Any
    """The way in which it runs one, of `RUNS`; None where it is none of them."""

    @classmethod
    def of(cls, prover: Prover) -> "ExpertForm":
        """That of a tiny model."""
        tiny = prover.tiny
        module = tiny.sites.expert_output.rpartition(".")[0]
        run = _run_of(tiny.layers, module, hidden=tiny.whole.hidden) if module else None
        return cls(module, run)

    def findings(self, findings: Mapping[str, Finding]) -> dict[str, Finding]:
        """The findings, with experts in full where nothing can score them."""
        result = dict(findings)
        if EXPERTS in findings and self.run is None:
            reason = "its experts run in a way that is not known, so that they cannot be scored"
            result |= {axis: _failed(findings, axis, reason) for axis in (EXPERTS, NEURONS)}
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

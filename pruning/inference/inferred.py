"""Inferred rows: a type without a row, understood and proven."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PretrainedConfig

from pruning.inference.building import random_model
from pruning.inference.growth import Growth
from pruning.inference.layout import Layout, Reading
from pruning.inference.proof import Finding, Prover
from pruning.inference.sites import sites_of
from pruning.inference.trace import projections_of

PROVEN = ("hidden", "ffn", "heads", "kv_heads", "experts", "expert_ffn", "shared_ffn", "layers")


@dataclass(frozen=True)
class Inferred:
    growth: Growth
    layout: Layout
    findings: Mapping[str, Finding]


def infer(config: PretrainedConfig) -> Inferred:
    growth = Growth.of(config)
    model = random_model(growth.tiny.config())
    projections = {}
    for layer in range(growth.tiny.sizes["layers"]):
        for p in projections_of(model, growth.loaded.naming, layer=layer):
            projections.setdefault(p.name, p)
    order = list(projections.values())
    candidates = Reading(growth, order).candidates()
    loaded = Reading(growth.loaded, order).candidates().layout()
    prover = Prover(growth, candidates, sites_of(growth.loaded, loaded, order), model)
    findings = {}
    for axis in PROVEN:
        if axis == "layers" or candidates.layout().counts(axis):
            findings[axis] = prover.finding(axis)
    return Inferred(growth, prover.layout, findings)

"""Inference: a type without a row, understood and proven on a tiny random model, or refused."""

from dataclasses import dataclass

from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.inference.building import random_model
from pruning.inference.family import InferredFamily, remembered
from pruning.inference.growth import Growth
from pruning.inference.layout import Reading
from pruning.inference.proof import Prover
from pruning.inference.rows import RowMaker
from pruning.inference.sites import sites_of
from pruning.inference.trace import Projection, projections_of

AXES = (
    "hidden",
    "ffn",
    "heads",
    "kv_heads",
    "experts",
    "expert_ffn",
    "shared_ffn",
    "layers",
)
"""Axes that can be inferred, in the order of their proofs."""


def infer(config: PretrainedConfig) -> InferredFamily:
    """The row of the type of `config`, which holds for all models of it that differ in sizes alone.

    Raises PruningError, with what stood in the way, where nothing can be proven.
    """
    growth = Growth.of(config)
    model = random_model(growth.tiny.config())
    order: dict[str, Projection] = {}
    for layer in range(growth.tiny.sizes["layers"]):
        for projection in projections_of(model, growth.loaded.naming, layer=layer):
            order.setdefault(projection.name, projection)
    projections = list(order.values())
    candidates = Reading(growth, projections).candidates()
    loaded = Reading(growth.loaded, projections).candidates().layout()
    prover = Prover(growth, candidates, sites_of(growth.loaded, loaded, projections), model)
    present = [axis for axis in AXES if axis == "layers" or candidates.layout().counts(axis)]
    findings = {axis: prover.finding(axis) for axis in present}
    if not any(finding.proven for finding in findings.values()):
        first = next(iter(findings.values()))
        raise PruningError(f"nothing of it can be proven; its {first.axis}: {first.reason}")
    return RowMaker(config, prover, loaded, findings).family()

"""Inference: a type without a row, understood and proven on a tiny random model, or refused."""

import json
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.inference.layouts.reading import Reading
from pruning.inference.layouts.trace import Projection, projections_of
from pruning.inference.proofs.search import Finding, Prover
from pruning.inference.proofs.tiny_model import TinyModel
from pruning.inference.rows.experts import ExpertForm
from pruning.inference.rows.family import InferredFamily
from pruning.inference.rows.maker import RowMaker
from pruning.inference.tiny.building import random_model
from pruning.inference.tiny.growth import Growth
from pruning.inference.tiny.sizes import NAMES, TOKENS

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

UNTOLD = (
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "use_cache",
)
"""Values of a configuration that change nothing of the model."""


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
    in_memory = Reading(growth.loaded, projections).candidates()
    tiny = TinyModel(growth, model)
    if not tiny.causal:
        raise PruningError("what it says of a token depends on later ones: it is no decoder")
    prover = Prover(tiny, candidates, in_memory, projections)
    counted = [axis for axis in AXES if axis == "layers" or candidates.layout().counts(axis)]
    findings = prover.findings(counted)
    for axis in AXES:  # sizes that no tensor was seen to grow with
        follows = axis == "kv_heads" and not growth.grouped
        if axis in growth.sizes and axis not in findings and not follows:
            reason = growth.stiff.get(axis, "no tensor grows with it")
            findings[axis] = Finding(axis, reason=f"it cannot be varied alone: {reason}")
    if not any(finding.proven for finding in findings.values()):
        first = next(iter(findings.values()))
        raise PruningError(f"nothing of it can be proven; its {first.axis}: {first.reason}")
    experts = ExpertForm.of(prover)
    return RowMaker(config, prover, experts, experts.findings(findings)).family()


def inferred_family(config: PretrainedConfig) -> InferredFamily:
    """The row of a type that has none in the table, inferred once for all sizes.

    Raises PruningError, with what stood in the way, where nothing can be proven.
    """
    found = _of_type(TypeKey.of(config))
    if isinstance(found, InferredFamily):
        return found
    raise PruningError(
        f"models of type {config.model_type!r} have no row in the table of families, and none "
        f"could be inferred: {found} (docs/families.md tells how)"
    )


@dataclass(frozen=True)
class TypeKey:
    """Configurations that differ in sizes alone, and so have one row."""

    text: str
    """All that they say but for sizes, layers and tokens."""
    config: PretrainedConfig = field(compare=False)
    """One of them."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "TypeKey":
        """The key of a configuration."""
        values = config.to_dict()
        sizes = {name for names in NAMES.values() for name in names} | {*TOKENS, *UNTOLD}
        told = {
            name: value
            for name, value in values.items()
            if name not in sizes and not isinstance(value, (list, float))
        }
        return cls(
            f"{type(config).__qualname__} {json.dumps(told, sort_keys=True, default=str)}", config
        )


@lru_cache(maxsize=256)
def _of_type(key: TypeKey) -> InferredFamily | str:
    """The row, or the reason why there is none."""
    try:
        return infer(key.config)
    except PruningError as problem:
        return str(problem)
    except Exception as problem:  # models break in their own ways
        return reason_of(problem)

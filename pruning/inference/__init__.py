"""Types without a row in the table: understood by themselves, proven, or refused."""

from pruning.inference.comparison import Comparison
from pruning.inference.explaining import explanation
from pruning.inference.proofs.block import inferred_row_proofs
from pruning.inference.rows.family import InferredFamily
from pruning.inference.rows.inferred import infer, inferred_family
from pruning.inference.verdicts import TypeVerdict, default_config

__all__ = [
    "Comparison",
    "InferredFamily",
    "TypeVerdict",
    "default_config",
    "explanation",
    "infer",
    "inferred_family",
    "inferred_row_proofs",
]

"""Types without a row in the table: understood by themselves, proven, or refused."""

from pruning.inference.comparison import Comparison
from pruning.inference.explaining import explanation
from pruning.inference.family import InferredFamily
from pruning.inference.inferred import infer, inferred_family

__all__ = ["Comparison", "InferredFamily", "explanation", "infer", "inferred_family"]

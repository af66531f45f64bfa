"""Types without a row in the table: understood by themselves, proven, or refused."""

from pruning.inference.inferred import infer, inferred_family

__all__ = ["infer", "inferred_family"]

"""Teacher targets: formats, encoding, files and reading ahead."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.targets.batch import TargetBatch
    from distill.targets.codecs import SampledCodec, unpack_ids
    from distill.targets.encode import SHARD_BLOCKS, ShardText, blocks_at_once
    from distill.targets.formats import (
        EVALUATION_DRAWS,
        FULL_VOCABULARY,
        FormatRequest,
        TargetFormat,
        choose_format,
        evaluation_format,
        shown_bytes,
    )
    from distill.targets.names import DRAWS, TRAINING_TOPK
    from distill.targets.store import TargetRequest, Targets, write_requested, write_targets

__all__ = [
    "DRAWS",
    "EVALUATION_DRAWS",
    "FULL_VOCABULARY",
    "SHARD_BLOCKS",
    "TRAINING_TOPK",
    "FormatRequest",
    "SampledCodec",
    "ShardText",
    "TargetBatch",
    "TargetFormat",
    "TargetRequest",
    "Targets",
    "blocks_at_once",
    "choose_format",
    "evaluation_format",
    "shown_bytes",
    "unpack_ids",
    "write_requested",
    "write_targets",
]

__getattr__ = lazy_exports(__name__)

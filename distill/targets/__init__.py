"""Teacher targets: formats, encoding, files and reading ahead."""

from distill.targets.batch import TargetBatch
from distill.targets.codecs import SampledCodec, unpack_ids
from distill.targets.encode import SHARD_BLOCKS, ShardText, blocks_at_once
from distill.targets.formats import (
    DRAWS,
    EVALUATION_DRAWS,
    FULL_VOCABULARY,
    TRAINING_TOPK,
    FormatRequest,
    TargetFormat,
    choose_format,
    evaluation_format,
    shown_bytes,
)
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

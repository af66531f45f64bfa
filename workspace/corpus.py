"""Corpus of a run: planned from its settings, and recorded with what depends on it."""

from typing import Any, Protocol

from common.errors import SearchError
from distill import Corpus, CorpusFiles, CorpusFrom, CorpusPlan, Packing, SplitSizes
from workspace.models.model_source import ModelSource

NEEDED = "corpus_tokens"
"""Part of a fingerprint: the training tokens after which reading ended; None: all were read."""


class TextSettings(Protocol):
    """The text as every command's configuration has it."""

    @property
    def corpus(self) -> str | list[str]:
        """Files, folders or data sets."""

    @property
    def corpus_files(self) -> CorpusFiles:
        """Which files of a folder count."""

    @property
    def corpus_from(self) -> CorpusFrom:
        """How it is read and packed."""

    @property
    def splits(self) -> SplitSizes:
        """How much of it is held out."""


def planned_text(
    config: TextSettings, teacher: ModelSource, *, block: int, assistant_only: bool = False
) -> CorpusPlan:
    """The text in blocks of so many tokens. Raises DistillError where its beginning is unusable."""
    plan = CorpusPlan.of(
        config.corpus,
        config.corpus_files,
        packing=Packing(block, config.splits, assistant_only, config.corpus_from),
    )
    plan.check(teacher.tokenizer)
    return plan


def corpus_parts(corpus: Corpus, needed: int | None) -> dict[str, Any]:
    """Parts of a fingerprint: all that is packed, and where reading ended."""
    return {"corpus": corpus.digest, NEEDED: needed}


def require_known_reading(recorded: dict[str, Any]) -> None:
    """Raises SearchError for what an earlier version began, which packed text otherwise."""
    if NEEDED not in recorded:
        raise SearchError(
            "this was begun with an earlier version, which packed the text otherwise; go on with "
            "that version, or begin anew with another --study or --output"
        )

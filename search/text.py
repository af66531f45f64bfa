"""The text of a run: planned and looked into from its settings, and what of it a run depends on."""

from typing import Any, Protocol

from distill import Corpus, CorpusFiles, CorpusFrom, CorpusPlan, Packing, SplitSizes
from search.errors import SearchError
from search.teacher import Teacher

NEEDED = "corpus_tokens"
"""Part of a fingerprint: the training tokens after which reading ended; None: all were read."""


class TextSettings(Protocol):
    """What every command is given of its text."""

    @property
    def corpus(self) -> str | list[str]: ...
    @property
    def corpus_files(self) -> CorpusFiles: ...
    @property
    def corpus_from(self) -> CorpusFrom: ...
    @property
    def splits(self) -> SplitSizes: ...


def planned_text(
    config: TextSettings, teacher: Teacher, block: int, assistant_only: bool = False
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
    """What a run depends on of its text: all that is packed, and where reading ended."""
    return {"corpus": corpus.digest, NEEDED: needed}


def require_known_reading(recorded: dict[str, Any]) -> None:
    """Raises SearchError for what an earlier version began, which packed text otherwise."""
    if NEEDED not in recorded:
        raise SearchError(
            "this was begun with an earlier version, which packed the text otherwise; go on with "
            "that version, or begin anew with another --study or --output"
        )

"""Plan of a corpus: its sources, and where its packed blocks are kept for later runs."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.progress import tell
from distill.data.corpus import SPLITS, Corpus
from distill.data.files.formats import Reading
from distill.data.files.sources import CorpusFiles, Source, find_sources
from distill.data.mixture import Input, Item
from distill.data.packing import Packing, pack_inputs, scratch_of
from distill.data.reading import Tally, empty_corpus, items_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOGGER = logging.getLogger(__name__)
LOOKED_AT = 32
"""Documents of each source that are read before anything else is done."""
VERSION = 1
"""Of how documents are read and packed; what another version packed is packed again."""


@dataclass(frozen=True)
class CorpusPlan:
    """Which text is read, and how it is packed; nothing read yet."""

    given: str | list[str]
    """The corpus as the user named it."""
    sources: tuple[Source, ...]
    """Files or data sets that it stands for."""
    packing: Packing
    """How their documents are read and packed."""

    @classmethod
    def of(
        cls,
        given: str | list[str],
        files: CorpusFiles,
        *,
        packing: Packing,
    ) -> "CorpusPlan":
        """Raises DistillError for sources that cannot be found."""
        tell(LOGGER, work="look at the text")
        return cls(given, find_sources(given, files, packing.reading), packing)

    def needing(self, tokens: int | None) -> "CorpusPlan":
        """The same, read until there are so many training tokens; None: wholly."""
        return replace(self, packing=replace(self.packing, needed=tokens))

    def check(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Read the first documents of every source.

        Raises DistillError where none of them can be used, so that most faults are found before
        anything is computed.
        """
        encoder = self.packing.encoder(tokenizer)
        for source in self.sources:
            tally = Tally(self.packing.reading.max_bad_share)
            first = Input(source.given, partial(_first_items, source))
            for item, _ in first.encoded(encoder):
                tally.count(item)
            if tally.rows < LOOKED_AT or not tally.usable:
                tally.close()
            if tally.rows < LOOKED_AT and not tally.usable:
                raise empty_corpus(source.given)

    def packed(
        self, tokenizer: "PreTrainedTokenizerBase", tokenizer_name: str, *, root: Path
    ) -> Corpus:
        """The corpus in `root`, packed now or before. Raises what `pack_inputs` raises.

        `tokenizer_name` is one for what the tokenizer does.
        """
        key = self._key(tokenizer_name)
        directory = root / f"corpus-{key}"
        if not directory.exists():
            for other in set(root.glob(".corpus-*.part")) - {scratch_of(directory)}:
                shutil.rmtree(other, ignore_errors=True)
            LOGGER.info(f"corpus: packing {_shown(self.sources)}")
            tell(LOGGER, work="packing of the text")
            inputs = [
                Input(source.given, partial(items_of, source), source.size, left_out=source.notes)
                for source in self.sources
            ]
            pack_inputs(inputs, tokenizer, packing=self.packing, directory=directory)
        corpus = Corpus(directory)
        for line in corpus_lines(corpus):
            LOGGER.info(f"corpus: {line}")
        return corpus

    def _key(self, tokenizer_name: str) -> str:
        """Of the files as they lie there, and of all that decides how they are packed."""
        reading = asdict(self.packing.reading)
        parts: list[Any] = [VERSION, tokenizer_name, reading, asdict(self.packing.sizes)]
        parts += [self.packing.block, self.packing.assistant_only, self.packing.needed]
        parts += [source.identity for source in self.sources]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _first_items(source: Source, reading: Reading) -> Iterator[Item]:
    return islice(items_of(source, reading), LOOKED_AT)


def _shown(sources: tuple[Source, ...]) -> str:
    files = sum(len(source.files) for source in sources)
    size = sum(source.size for source in sources)
    shown = "1 file" if files == 1 else f"{files:,} files"
    return f"{shown}, {size / 1e6:,.1f} MB" if all(source.size for source in sources) else shown


def corpus_lines(corpus: Corpus) -> list[str]:
    """Lines for people: tokens by split, and how the sources were read."""
    facts = corpus.facts
    shown = ", ".join(f"{split} {facts[f'{split}_tokens']:,}" for split in SPLITS)
    lines = [*facts["notes"], f"{shown} tokens in blocks of {corpus.block}"]
    counted = facts.get("train_counted_tokens")
    if counted is not None:
        share = counted / facts["train_tokens"]
        lines.append(f"the loss is on {counted:,} training tokens of the assistant ({share:.0%})")
    return lines

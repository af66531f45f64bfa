"""Packing of documents into blocks on disk, a batch at a time, so that any corpus fits memory.

Documents of a split are joined, with an end-of-text token after each where the tokenizer has one
and the document does not end itself (as most chats do), and cut into blocks of one length. Reading
ends where there is enough of every split. What was killed goes on where it was a few seconds
before: the tokens so far lie in a folder of their own, with how many documents they are.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DistillError
from common.files import write_directory_atomically, write_file_atomically
from common.progress import Progress, Throttle, duration, tell
from distill.data.chat.encoder import Encoded, Encoder
from distill.data.corpus import FACTS, SPLITS, Corpus, SplitSizes, evenly
from distill.data.documents import Document
from distill.data.mixture import Input, Item, mixed
from distill.data.reading import Tally
from distill.data.settings import CorpusFrom
from distill.data.split_files import SplitFiles
from distill.data.splits import split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOGGER = logging.getLogger(__name__)
MINIMUM_BLOCKS = {"train": 8, "selection": 2, "test": 2}
HELD_OUT_SHARE = 0.05
"""At most so much of what is packed is selection, and as much test."""
SAVE_SECONDS = 5.0
"""Between two notes of how far packing has come; what a kill can lose."""
LINE_SECONDS = (10.0, 60.0)
"""Between two lines of progress: at first, and of what takes long."""
TELL_SECONDS = 0.5
"""Between two figures for who shows them."""
STATE = "state.json"


@dataclass(frozen=True)
class Packing:
    """How documents are packed."""

    block: int
    """Tokens per block."""
    sizes: SplitSizes = field(default_factory=SplitSizes)
    """Tokens of the held-out splits."""
    assistant_only: bool = False
    """Whether of a chat only what the assistant says counts."""
    reading: CorpusFrom = field(default_factory=CorpusFrom)
    """How much is read of each source, and how texts begin."""
    needed: int | None = None
    """Training tokens after which reading ends, once the held-out splits are full; None: all."""

    def encoder(self, tokenizer: "PreTrainedTokenizerBase") -> Encoder:
        """The encoder that makes tokens of the documents."""
        return Encoder.of(
            tokenizer, self.assistant_only, bos=self.reading.bos, day=self.reading.day
        )

    def limit(self, split: str) -> int:
        """Most blocks of a held-out split."""
        tokens: int = getattr(self.sizes, f"{split}_tokens")
        if tokens // self.block < MINIMUM_BLOCKS[split]:
            raise DistillError(
                f"{split}_tokens is {tokens}; it must be at least {MINIMUM_BLOCKS[split]} blocks "
                f"of {self.block} tokens"
            )
        return tokens // self.block


def scratch_of(directory: Path) -> Path:
    """Where a corpus that is being packed into `directory` is kept until it is whole."""
    return directory.with_name(f".{directory.name}.part")


def pack_corpus(
    documents: Iterable[Document],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    packing: Packing,
    directory: Path,
) -> Corpus:
    """Documents that are at hand as `pack_inputs` packs them."""
    given = list(documents)
    inputs = [Input("documents", lambda _: iter(given))]
    shutil.rmtree(scratch_of(directory), ignore_errors=True)
    return pack_inputs(inputs, tokenizer, packing=packing, directory=directory)


def pack_inputs(
    inputs: list[Input], tokenizer: "PreTrainedTokenizerBase", *, packing: Packing, directory: Path
) -> Corpus:
    """Tokenise and pack the documents of several inputs into `directory`.

    Unfinished work is kept in `scratch_of(directory)` and goes on from there. Chats are written by
    the tokenizer's own template. With `assistant_only` the corpus has weights: of a chat only what
    the assistant says counts, of a plain text everything, and blocks in which nothing counts are
    left out of every split.

    Raises DistillError for a corpus that is empty or too small for its splits, for one with too
    many rows that cannot be used, and where the assistant's tokens are wanted but there are no
    chats or the template does not show them.
    """
    encoder, scratch = packing.encoder(tokenizer), scratch_of(directory)
    try:
        with _Run(inputs, encoder, packing=packing, scratch=scratch) as run:
            run.read()
            run.write(directory)
    except DistillError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return Corpus(directory)


class _Run:
    """One start of packing."""

    def __init__(self, inputs: list[Input], encoder: Encoder, *, packing: Packing, scratch: Path):
        self.limits = {split: packing.limit(split) for split in ("selection", "test")}
        largest = max(encoder.tokenizer.get_vocab().values())  # numbers may be left out
        dtype = np.dtype(np.uint16 if largest < 2**16 else np.int32)
        scratch.mkdir(parents=True, exist_ok=True)
        self.inputs, self.encoder, self.packing = inputs, encoder, packing
        self.scratch = scratch
        self.splits = {
            name: SplitFiles(
                name, scratch, dtype=dtype, block=packing.block, weighted=packing.assistant_only
            )
            for name in SPLITS
        }
        self.tally = Tally(packing.reading.max_bad_share)
        self.chats = 0
        self._files = ExitStack()
        self._line_due, self._save_due = Throttle(LINE_SECONDS[0]), Throttle(SAVE_SECONDS)
        self._tell_due = Throttle(TELL_SECONDS)

    def __enter__(self) -> "_Run":
        state = self._found()
        for name, split in self.splits.items():
            split.open(self._files, state["splits"][name] if state else None)
        if state:
            self.tally, self.chats = Tally(**state["tally"]), state["chats"]
            for each, known in zip(self.inputs, state["inputs"], strict=True):
                each.items, each.tokens = known["items"], known["tokens"]
            LOGGER.info(f"corpus: packing goes on behind {self.tokens:,} tokens")
        self._progress = Progress(done=self.tokens)
        return self

    def __exit__(self, *problem: object) -> None:
        self._files.close()

    def _found(self) -> dict[str, Any] | None:
        """Where an earlier start was, or None where it left nothing that can be used."""
        try:
            state: dict[str, Any] = json.loads((self.scratch / STATE).read_text())
        except (OSError, ValueError):
            return None
        held = all(split.holds(state["splits"][name]) for name, split in self.splits.items())
        return state if held else None

    @property
    def tokens(self) -> int:
        """Written so far, in all splits."""
        return sum(split.tokens for split in self.splits.values())

    def read(self) -> None:
        """Read until there is enough, or no more."""
        for item, row in mixed(self.inputs, self.encoder, self.packing.reading.weights):
            self._take(item, row)
            if self._save_due():
                self._save()
            self._tell()
            if self._line_due():
                self._log_progress()
            if self.enough():
                break
        self.tally.close()

    def _take(self, item: Item, row: Encoded | None) -> None:
        self.tally.count(item)
        if row is None:
            return
        assert isinstance(item, Document)
        self.chats += item.messages is not None
        sizes = self.packing.sizes
        of = [
            split_of(name, sizes.selection_share, sizes.test_share)
            for name in (item.name, *item.copies)
        ]
        # trained on if one of its copies is, since then none of them is held out
        self.splits[min(of, key=SPLITS.index)].add(item, row)

    def enough(self) -> bool:
        """Whether nothing more is to be read."""
        return self._share() >= 1

    def _share(self) -> float:
        """How much of what is to be read has been; above 1 where that is all."""
        most, needed = self.packing.reading.tokens, self.packing.needed
        if most is not None:
            return self.tokens / most
        if needed is None:
            return 0.0
        kept = {name: split.kept for name, split in self.splits.items()}
        shares = [kept["train"] * self.packing.block / needed]
        for name, limit in self.limits.items():
            shares += [kept[name] / limit, sum(kept.values()) * HELD_OUT_SHARE / limit]
        return min(shares)

    def _save(self) -> None:
        state = {
            "splits": {name: split.state() for name, split in self.splits.items()},
            "tally": self.tally.state(),
            "chats": self.chats,
            "inputs": [{"items": each.items, "tokens": each.tokens} for each in self.inputs],
        }
        write_file_atomically(self.scratch / STATE, json.dumps(state))

    def _tell(self) -> None:
        if self._tell_due():
            tell(
                LOGGER,
                work="packing of the text",
                done=float(self.tokens),
                unit="tokens",
                speed=self._progress.speed(self.tokens),
            )

    def _log_progress(self) -> None:
        speed = self._progress.speed(self.tokens)
        size = sum(each.size for each in self.inputs)
        done = sum(each.done for each in self.inputs) / size if size else 0.0
        done = max(done, min(self._share(), 1.0))
        line = f"corpus: {self.tokens:,} tokens packed, {speed:,.0f} tokens/s"
        if done > 0 and speed:
            self._progress.total = self.tokens / done
            line += f", about {duration(self._progress.left(self.tokens))} left of it"
        LOGGER.info(line)
        least, most = LINE_SECONDS
        self._line_due.seconds = min(max(least, self._progress.seconds / 10), most)

    def write(self, directory: Path) -> None:
        """Choose blocks and write the corpus."""
        if not any(split.documents for split in self.splits.values()):
            raise DistillError("the corpus is empty: no document with text was found in it")
        if self.packing.assistant_only and not self.chats:
            raise DistillError(
                "--assistant_only is set, but the corpus has no chats (rows with 'messages'); "
                "leave it out, or give a corpus of chats"
            )
        chosen = self._chosen()

        def fill(target: Path) -> None:
            facts: dict[str, Any] = {"block": self.packing.block, "largest": 0}
            digest = hashlib.sha256(str(self.packing.block).encode())
            for name, split in self.splits.items():
                digest.update(f"{name} {len(chosen[name])}".encode())
                for fact, value in split.write(chosen[name], target, digest).items():
                    if fact == "largest":
                        facts[fact] = max(facts[fact], value)
                    else:
                        facts[f"{name}_{fact}"] = value
            facts |= {"digest": digest.hexdigest()[:16], "notes": self._notes()}
            (target / FACTS).write_text(json.dumps(facts))

        write_directory_atomically(directory, fill)

    def _chosen(self) -> dict[str, NDArray[np.int64]]:
        """Per split the blocks that are written: held out some of them, evenly spread."""
        chosen = {name: split.chosen() for name, split in self.splits.items()}
        total = sum(map(len, chosen.values()))
        for name, limit in self.limits.items():
            most = max(int(total * HELD_OUT_SHARE), MINIMUM_BLOCKS[name])
            kept = chosen[name]
            chosen[name] = kept[evenly(len(kept), min(limit, most))]
        for name, kept in chosen.items():
            if len(kept) < MINIMUM_BLOCKS[name]:
                raise self._too_small(name, len(kept))
        return chosen

    def _too_small(self, name: str, blocks: int) -> DistillError:
        split, block = self.splits[name], self.packing.block
        left_out = split.tokens // block - split.kept
        dropped = f", {left_out} more in which no token counts" if left_out else ""
        more = "give more text"
        weighted = self.packing.reading.weights is not None and not self.enough()
        ended = [each.name for each in self.inputs if each.ended] if weighted else []
        if ended:
            more = f"{ended[0]} ended, and with it the mixture; give more of it"
        share = "" if name == "train" else f", or a larger --splits.{name}_share (at most 0.05)"
        if self.packing.reading.tokens is not None:
            more += ", a larger --corpus_from.tokens"
        return DistillError(
            f"the corpus is too small: its {name} split has {blocks} blocks of {block} tokens "
            f"({split.documents} documents{dropped}) and needs {MINIMUM_BLOCKS[name]}; {more}, or "
            f"a smaller --block{share}"
        )

    def _notes(self) -> list[str]:
        """Lines about how the corpus was read."""
        notes = [note for each in self.inputs for note in each.notes()]
        if len(self.inputs) > 1:
            total = sum(each.tokens for each in self.inputs)
            shares = [f"{each.tokens / total:.1%} {each.name}" for each in self.inputs]
            notes.append(f"{', '.join(shares)} of its tokens")
        if self.packing.reading.weights and not self.enough():
            ended = next(each.name for each in self.inputs if each.ended)
            notes.append(f"{ended} ended, and so the text, whose shares would not hold without it")
        return [*notes, *self.tally.lines()]

"""Mixture: documents of several inputs as one stream of tokens, in shares that the user gives.

Which input comes next depends on the tokens that each has given so far, and on nothing else, so
that the shares are those of the tokens (documents of one source may be a hundred times as long as
those of another) and a stream that was cut off goes on exactly as it would have.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from distill.data.chat.encoder import Encoded, Encoder, Rejected
from distill.data.documents import Document
from distill.data.files.formats import Reading
from distill.data.files.rows import Unusable

BATCH_DOCUMENTS = 512
"""Documents tokenised at a time, at most."""
BATCH_CHARACTERS = 4_000_000
"""Characters tokenised at a time, beyond which a batch takes no further document."""
Item = Document | Unusable | None


@dataclass
class Input:
    """A source of documents, and how much of it was taken."""

    name: str
    """The source as the user named it."""
    read: Callable[[Reading], Iterator[Item]]
    """Begins to read it; notes in `Reading` how far it has come."""
    size: int = 0
    """Bytes, 0 where they are not known."""
    left_out: tuple[str, ...] = ()
    """What of the source is not read."""
    items: int = 0
    """Documents and rows taken, those that could not be used included."""
    tokens: int = 0
    """Tokens of these documents."""
    done: int = 0
    """Bytes of its files up to the last that was taken; batches are read ahead of it."""
    ended: bool = False
    """Whether all of it was read."""
    reading: Reading = field(default_factory=Reading)
    """How far its files are read."""

    def notes(self) -> list[str]:
        """How it was read."""
        lines = [f"{self.name}: left out {what}" for what in self.left_out]
        if not self.ended:
            part = min(self.done / self.size, 1.0) if self.size else 0.0
            # of a table it is not known how far its file was read
            lines.append(f"{self.name}: {f'{part:.0%}' if part else 'a part'} of it read")
        return lines

    def encoded(self, encoder: Encoder) -> Iterator[tuple[Item, Encoded | None]]:
        """The documents after those that were taken, tokenised a batch at a time."""
        items = islice(self.read(self.reading), self.items, None)
        while batch := _batch(items, self.reading):
            documents = [item for item, _ in batch if isinstance(item, Document)]
            rows = iter(encoder.encode(documents))
            for item, self.done in batch:
                row = next(rows) if isinstance(item, Document) else None
                if isinstance(row, Rejected):
                    assert isinstance(item, Document)
                    yield Unusable(item.place, row.reason), None
                else:
                    yield item, row


def _batch(items: Iterator[Item], reading: Reading) -> list[tuple[Item, int]]:
    """Items, each with the bytes that were read up to it."""
    batch: list[tuple[Item, int]] = []
    characters = 0
    while len(batch) < BATCH_DOCUMENTS and characters < BATCH_CHARACTERS:
        try:
            item = next(items)
        except StopIteration:
            break
        batch.append((item, reading.done))
        characters += len(item.text) if isinstance(item, Document) else 0
    return batch


def mixed(
    inputs: Sequence[Input], encoder: Encoder, weights: Sequence[float] | None
) -> Iterator[tuple[Item, Encoded | None]]:
    """Documents of all inputs, each counted into its input as it is taken.

    With `weights` it ends where the first input ends, else where all have; until then the input
    is next that has the fewest tokens for its weight.
    """
    streams = [each.encoded(encoder) for each in inputs]
    waiting = deque(range(len(inputs)))
    while waiting:
        index = min(waiting, key=lambda i: (inputs[i].tokens / (weights[i] if weights else 1.0), i))
        found = next(streams[index], None)
        if found is None:
            inputs[index].ended = True
            waiting.remove(index)
            if weights:
                return
            continue
        inputs[index].items += 1
        inputs[index].tokens += 0 if found[1] is None else len(found[1].ids)
        yield found

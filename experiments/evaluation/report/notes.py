"""Notes on the figures of an evaluation: what is to be known before they are quoted."""

from collections.abc import Iterator, Sequence

from experiments.evaluation.measuring.contenders import Contender
from experiments.evaluation.measuring.parts import Asked
from experiments.evaluation.measuring.pieces import Pieces, not_kept


def notes_of(asked: Asked, contenders: Sequence[Contender]) -> list[str]:
    """What is to be known of the figures."""
    first, notes = contenders[0], list[str]()
    if asked.pieces is not None:
        notes.append(
            f"The text is read in {len(asked.pieces.texts):,} pieces of whole lines, each from its "
            f"beginning ({asked.config.split} documents of --corpus); bits per byte count every "
            "byte of it, whatever the tokenizer."
        )
        notes += [note for each in contenders for note in _notes_of_bytes(asked.pieces, each)]
        for each in contenders[1:]:
            if not each.same_tokens(first):
                notes.append(
                    f"{each.label} reads other tokens than {first.label}: its KL and agreement are "
                    "not defined, and its perplexity per token cannot be compared; bits per byte "
                    "can."
                )
    if asked.tasks:
        notes.append(
            f"Questions of tasks have at most {asked.max_length:,} tokens; longer ones lose their "
            "beginning. Figures whose metric is no mean over the questions have no interval."
        )
        limit = asked.config.task_questions
        named = [name for tasks in asked.tasks for name in tasks.names]
        if limit is not None and named:
            notes.append(
                f"Of {', '.join(named)} the first {limit:,} questions of each task are asked: not "
                "the figures that others report of all."
            )
    if asked.config.speed.seconds > 0:
        notes.append(
            "Models are timed one after the other, in PyTorch's eager mode with the attention that "
            "transformers uses by default; other engines have other speeds. A speed is the median "
            "over the turns. The cache is that of the whole batch after its context."
        )
    notes.append("Intervals are over questions and pieces of text: of these models, as they are.")
    return notes


def _notes_of_bytes(pieces: Pieces, contender: Contender) -> Iterator[str]:
    """Where bits per byte are not those of every byte."""
    label, missing = contender.label, not_kept(pieces, contender)
    if not contender.beginning:
        yield (
            f"The tokenizer of {label} has neither BOS nor EOS: the first token of each piece, "
            "before which nothing stands, is not counted."
        )
    if missing:
        yield (
            f"The tokens of {label} do not write {missing:,} of the {len(pieces.texts):,} pieces "
            "back as they were, so that its bits per byte are of less than the text: they flatter "
            "it."
        )

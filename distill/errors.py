"""Exceptions of `distill`, raised for text, targets or settings; the text says the remedy."""


class DistillError(ValueError):
    """The corpus, the targets or the settings given cannot be used."""


class OutOfMemory(DistillError):
    """A forward pass does not fit the memory of its device."""


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message says at which step."""

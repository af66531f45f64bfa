"""What `pruning` raises when a model or a shape cannot be pruned; the text says the remedy."""


class PruningError(ValueError):
    """The model, the checkpoint or the architecture asked for cannot be used as given."""

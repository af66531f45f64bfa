"""Names of the forms that students are copied in."""

from collections.abc import Sequence

from common.errors import PruningError

PADDED, DECILM, MULTIMODAL = "padded", "decilm", "multimodal"
EXPORTS = (PADDED, DECILM, MULTIMODAL)
"""All that --export may name: forms of students whose layers differ, and a student put back into
the multimodal model of its teacher."""


def check_forms(forms: Sequence[str]) -> None:
    """Raises PruningError for a name that is no form."""
    for form in forms:
        if form not in EXPORTS:
            raise PruningError(f"--export has {form!r}; it must be any of {', '.join(EXPORTS)}")

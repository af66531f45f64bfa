"""Names of what a winner is held against (--evidence)."""

EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE = "short", "full", "none"
EVIDENCE = (EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE)


HALVING, HYPERBAND, NEVER = "halving", "hyperband", "none"
"""Names of the ways to stop early, as the user gives them."""


STOPPERS = (HALVING, HYPERBAND, NEVER)
"""All of them."""


CANDIDATE = "candidate"


RANDOM_ARCHITECTURE = "random architecture"


RANDOM_INITIALISATION = "random initialisation"


UNCORRECTED = "uncorrected teacher"
"""The winner's shape, cut from and taught by the teacher as the user gave it."""

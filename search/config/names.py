"""Names that several rooms of the search share: evidence, stoppers, roles of students."""

EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE = "short", "full", "none"
EVIDENCE = (EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE)
"""What --evidence takes: runs of the baselines that a winner is held against."""

HALVING, HYPERBAND, NEVER = "halving", "hyperband", "none"
"""Names of the ways to stop early, as the user gives them."""
STOPPERS = (HALVING, HYPERBAND, NEVER)
"""All of them."""

CANDIDATE = "candidate"
RANDOM_ARCHITECTURE = "random architecture"
RANDOM_INITIALISATION = "random initialisation"
"""Roles of students beside the uniform shrink."""

UNCORRECTED = "uncorrected teacher"
"""The winner's shape, cut from and taught by the teacher as the user gave it."""

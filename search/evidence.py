"""Names of what a winner is held against (--evidence)."""

EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE = "short", "full", "none"
EVIDENCE = (EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE)

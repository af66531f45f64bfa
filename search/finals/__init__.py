"""Full runs: which candidates are distilled in full, the runs, the measures."""

"""Facts that a report has beside its scores: language, samples, what was untrained, the run."""

"""Layouts: what each dimension of each tensor counts, and where the parts of a layer are heard."""

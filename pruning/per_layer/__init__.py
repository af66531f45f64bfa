"""Students whose layers differ: their layers, their classes, and loading them."""

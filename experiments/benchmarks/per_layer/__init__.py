"""Students whose layers differ against uniform ones: the parts of `search/per_layer.py`."""

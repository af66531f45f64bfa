"""Files of a corpus: formats, rows and folders."""

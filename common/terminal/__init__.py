"""Display: what a command says while it runs, as lines or as one live view on a terminal."""

from common.terminal.display import Display, display

__all__ = ["Display", "display"]

"""The demo's teacher and corpus files, which the benchmarks take by default."""

from pathlib import Path

from distill.data import CorpusFiles

TEACHER = Path(__file__).resolve().parents[1] / "demo" / "teacher"
LIBRARY_FILES = CorpusFiles(
    include=["*.py"],
    exclude=["test", "tests", "idle_test", "site-packages", "__pycache__"],
)
"""The standard library as the demo reads it."""

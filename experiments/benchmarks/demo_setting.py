"""The demo's teacher and corpus files, which the benchmarks take by default."""

import argparse
import sysconfig
from pathlib import Path

from distill.data import CorpusFiles

TEACHER = Path(__file__).resolve().parents[1] / "demo" / "teacher"
LIBRARY_FILES = CorpusFiles(
    include=["*.py"],
    exclude=["test", "tests", "idle_test", "site-packages", "__pycache__"],
)
"""The standard library as the demo reads it."""


def add_teacher_and_corpus(parser: argparse.ArgumentParser) -> None:
    """Options --teacher and --corpus, by default those of the demo."""
    parser.add_argument("--teacher", type=Path, default=TEACHER, help="a checkpoint")
    parser.add_argument("--corpus", default=sysconfig.get_path("stdlib"))

"""What cutting a student costs over copying as many bytes: sorted file to student file on disk.

python experiments/benchmarks/pruning/cut.py
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from experiments.benchmarks.pruning.cut_large import copy_bytes, random_ordering, write_checkpoint
from pruning import (  # noqa: E402
    Architecture,
    Checkpoint,
    Ordering,
    architecture_of,
    write_sorted_teacher,
    write_student,
)

GOAL = 1.5


def make_sorted_teacher(directory: Path, layers: int) -> tuple[Checkpoint, Ordering]:
    """A Llama of about 14 M parameters per layer in bf16, sorted by random scores."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        intermediate_size=3584,
        num_hidden_layers=layers,
        dtype="bfloat16",
    )
    write_checkpoint(config, directory / "teacher")
    ordering = random_ordering(config)
    write_sorted_teacher(Checkpoint(directory / "teacher"), ordering, directory / "sorted")
    return Checkpoint(directory / "sorted"), ordering


def time_runs(
    teacher: Checkpoint, architecture: Architecture, kept: list[int], work: Path, runs: int
) -> tuple[list[float], list[float], int]:
    """Seconds of every cut, of every copy of as many bytes, and the bytes."""
    cuts, copies = [], []
    student, copied = work / "student" / "model.safetensors", work / "copy"
    for run in range(runs + 1):
        shutil.rmtree(student.parent, ignore_errors=True)
        start = time.perf_counter()
        write_student(teacher, architecture, kept, student.parent)
        cut = time.perf_counter() - start
        copied.unlink(missing_ok=True)
        start = time.perf_counter()
        # Twice the file, since a student of the teacher's size may have a longer header.
        copy_bytes([next(iter(teacher.files()))] * 2, copied, student.stat().st_size)
        copy = time.perf_counter() - start
        if run:  # the first is a warm-up
            cuts.append(cut)
            copies.append(copy)
    return cuts, copies, student.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="where to make the temporary directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        teacher, ordering = make_sorted_teacher(Path(name), options.layers)
        whole = architecture_of(teacher.config)
        rows: list[dict[str, Any]] = []
        for label, architecture in {
            "every axis": Architecture(options.layers * 3 // 4, 768, 12, 4, 2560),
            "teacher size": whole,
        }.items():
            kept = ordering.kept_layers(architecture.layers)
            cuts, copies, size = time_runs(teacher, architecture, kept, Path(name), options.runs)
            rows.append(
                {
                    "student": str(architecture),
                    "what": label,
                    "megabytes": round(size / 1e6, 1),
                    "cut_seconds": round(statistics.median(cuts), 4),
                    "copy_seconds": round(statistics.median(copies), 4),
                    "cut_over_copy": round(statistics.median(cuts) / statistics.median(copies), 3),
                }
            )
    print(f"sorted teacher {whole} bf16, median of {options.runs} alternating runs")
    for row in rows:
        print(
            f"  {row['student']:26} {row['megabytes']:7.1f} MB  cut {row['cut_seconds']:.3f} s  "
            f"copy {row['copy_seconds']:.3f} s  ratio {row['cut_over_copy']:.3f} (goal <= {GOAL})"
        )
    result = {
        "benchmark": "cut",
        "teacher": str(whole),
        "runs": options.runs,
        "threads": torch.get_num_threads(),
        "cut_over_copy": max(row["cut_over_copy"] for row in rows),
        "goal": GOAL,
        "rows": rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Cutting an 8B-shape checkpoint to the shape of a 4B one without loading it whole.

    python experiments/benchmarks/pruning/cut_large.py [--directory DIR]

Writes a Llama-3.1-8B shape in bf16 with random weights in shards (16 GB), then, each in a process
of its own and from a cold page cache: checks it, cuts it to Llama-3.1-Minitron-4B-Width's shape by
a random ordering, and copies as many bytes on the same disk. Prints seconds and the peak of the
host memory above that of the interpreter with its imports. Needs 26 GB of disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import torch
from transformers import LlamaConfig

from common.errors import PruningError
from common.files import require_space
from pruning import Architecture, Importance, Ordering, architecture_of
from pruning.families import axis_rows, family_of, tensor_shape
from pruning.slicing import TensorPlan, write_tensors

GOAL = 2.0
MEMORY_OVER = 200e6
CHUNK = 16 << 20
SHARD_BYTES = 5_000_000_000
EIGHT = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=131_072,
    tie_word_embeddings=False,
    dtype="bfloat16",
)
FOUR = Architecture(layers=32, hidden=3072, heads=32, kv_heads=8, ffn=9216)

WORK = """
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import torch, transformers
from experiments.benchmarks.pruning.cut_large import FOUR, copy_bytes
from pruning import Architecture, Checkpoint, Ordering, write_student
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "memory": (peak - before) * 1024}}))
"""


def write_checkpoint(config: LlamaConfig, directory: Path) -> int:
    """A checkpoint of random weights; returns the bytes of its largest tensor."""
    block = (torch.randn(8 << 20, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    whole, rows = architecture_of(config), axis_rows(config)
    planned = []
    for tensor in family_of(config).tensors(config):
        shape = tuple(tensor_shape(whole, tensor.axes, rows=rows))
        planned.append(TensorPlan(tensor.name, shape, "BF16", partial(_pieces, shape, block)))
    require_space(directory, sum(tensor.bytes for tensor in planned), error=PruningError)
    directory.mkdir(parents=True)
    write_tensors(planned, directory, shard_bytes=SHARD_BYTES)
    config.save_pretrained(directory)
    return max(tensor.bytes for tensor in planned)


def _pieces(shape: tuple[int, ...], block: torch.Tensor) -> Iterator[torch.Tensor]:
    left = int(torch.Size(shape).numel())
    while left:
        yield block[: min(left, len(block))]
        left -= min(left, len(block))


def random_ordering(config: LlamaConfig) -> Ordering:
    sizes = architecture_of(config)
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "hidden": (sizes.hidden,),
        "heads": (sizes.layers, sizes.heads),
        "ffn": (sizes.layers, sizes.ffn),
        "layers": (sizes.layers,),
    }
    scores = {axis: torch.rand(shape, generator=generator) for axis, shape in shapes.items()}
    return Ordering.from_importance(Importance(**scores), sizes)


def copy_bytes(sources: list[Path], target: Path, size: int) -> None:
    """The first `size` bytes of the files, read, written and on the disk at the end."""
    with target.open("wb") as writer:
        for source in sources:
            with source.open("rb") as reader:
                while size and (block := reader.read(min(CHUNK, size))):
                    writer.write(block)
                    size -= len(block)
        writer.flush()
        os.fsync(writer.fileno())


def cold(directory: Path) -> None:
    """Have the system forget what it holds of the files."""
    for file in directory.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: str) -> dict[str, float]:
    """Seconds and memory (bytes) of a piece of work in a process of its own."""
    code = WORK.format(root=str(ROOT), work=work)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def figures(
    cuts: list[dict[str, float]], copies: list[dict[str, float]], *, memory: float, largest: int
) -> dict[str, Any]:
    """The line of JSON, of all runs; `memory` and the `largest` tensor are in bytes."""
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(cuts, copies, strict=True)]
    return {
        "benchmark": "cut_large",
        "cut_over_copy": round(statistics.median(ratios), 3),
        "goal": GOAL,
        "cut_seconds": round(statistics.median(c["seconds"] for c in cuts), 1),
        "copy_seconds": round(statistics.median(c["seconds"] for c in copies), 1),
        "peak_memory_mb": round(memory / 1e6),
        "memory_goal_mb": round((3 * largest + MEMORY_OVER) / 1e6),
        "largest_tensor_mb": round(largest / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=EIGHT.num_hidden_layers)
    parser.add_argument("--directory", type=Path, help="where to make the temporary directory")
    options = parser.parse_args()
    config = LlamaConfig.from_dict(EIGHT.to_dict() | {"num_hidden_layers": options.layers})
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        work = Path(name)
        teacher, student, copied = work / "teacher", work / "student", work / "copy"
        started = time.perf_counter()
        largest = write_checkpoint(config, teacher)
        random_ordering(config).save(work / "ordering.safetensors")
        shards = sorted(teacher.glob("*.safetensors"))
        written = sum(file.stat().st_size for file in shards)
        print(
            f"wrote {written / 1e9:.2f} GB in {len(shards)} shards, "
            f"{time.perf_counter() - started:.0f} s; largest tensor {largest / 1e6:,.0f} MB"
        )
        cold(teacher)
        check = timed(f"Checkpoint(Path({str(teacher)!r})).check()")
        print(f"check: {check['seconds']:.1f} s, {check['memory'] / 1e6:,.0f} MB")
        shape = f"Architecture(**(FOUR.to_dict() | {{'layers': {options.layers}}}))"
        cut = (
            f"write_student(Checkpoint(Path({str(teacher)!r})), {shape}, "
            f"list(range({options.layers})), Path({str(student)!r}), "
            f"ordering=Ordering.load(Path({str(work / 'ordering.safetensors')!r})))"
        )
        cuts, copies = [], []
        for run in range(options.runs):
            subprocess.run(["rm", "-rf", str(student), str(copied)], check=True)
            cold(teacher)
            cuts.append(timed(cut))
            size = sum(file.stat().st_size for file in student.glob("*.safetensors"))
            subprocess.run(["rm", "-rf", str(student)], check=True)
            cold(teacher)
            sources = [str(file) for file in shards]
            copy = f"copy_bytes([Path(s) for s in {sources!r}], Path({str(copied)!r}), {size})"
            copies.append(timed(copy))
            print(
                f"run {run + 1}: cut {cuts[-1]['seconds']:.1f} s, "
                f"{cuts[-1]['memory'] / 1e6:,.0f} MB; copy of {size / 1e9:.2f} GB "
                f"{copies[-1]['seconds']:.1f} s",
                flush=True,
            )
    memory = max(run["memory"] for run in [*cuts, check])
    print(json.dumps(figures(cuts, copies, memory=memory, largest=largest)))


if __name__ == "__main__":
    main()

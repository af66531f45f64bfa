"""Check of the whole path on one GPU, in under ten minutes: whether it works, and how fast it is.

    python experiments/gpu/check.py [--output runs/gpu] [--parts steps losses ...]

Parts, each in a process of its own:
    steps    a distillation step of a 1B student of a 3B teacher at 4,096 tokens of context
    losses   the loss alone, beside Liger Kernel's
    targets  how fast teacher targets are written
    cut      an 8B shape: its importance, and its cut to the shape of a 4B model
    search   eight candidates of a 1B shape that share the GPU, with one full run
    memory   what trials take of the GPU, beside the estimate of a search

Each leaves NAME.json and NAME.log in the output; parts that are there are not run again, so that
the check goes on after a kill. The last line is all of it as JSON. Weights are random: no time and
no memory depends on them.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from common.files import write_file_atomically
from experiments.gpu.parts import PARTS


def run_part(name: str, output: Path) -> None:
    """Do one part in this process and write what it found."""
    started = time.monotonic()
    found: dict[str, Any] = {
        "part": name,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "found": PARTS[name](output),
    }
    found["seconds"] = round(time.monotonic() - started, 1)
    write_file_atomically(output / f"{name}.json", json.dumps(found))


def checked(name: str, output: Path) -> dict[str, Any]:
    """What a part found, now or before; `failed` is its last line where it did not end well."""
    path, log = output / f"{name}.json", output / f"{name}.log"
    if not path.exists():
        print(f"{name}: begun, its lines are in {log}", flush=True)
        command = [sys.executable, __file__, "--only", name, "--output", str(output)]
        with log.open("w") as lines:
            subprocess.run(command, stdout=lines, stderr=subprocess.STDOUT, check=False)
    if not path.exists():
        last = (log.read_text().strip().splitlines() or ["nothing was printed"])[-1]
        return {"part": name, "failed": last}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this checks a GPU, and torch finds none here")
    options.output.mkdir(parents=True, exist_ok=True)
    if options.only:
        run_part(options.only, options.output)
        return 0
    started, parts = time.monotonic(), []
    for name in options.parts:
        part = checked(name, options.output)
        parts.append(part)
        how = f"failed, {part['failed']}" if "failed" in part else f"{part['seconds']:.0f} s"
        print(f"{name}: {how}", flush=True)
    report = {"check": "gpu", "seconds": round(time.monotonic() - started, 1), "parts": parts}
    write_file_atomically(options.output / "check.json", json.dumps(report, indent=1))
    print(json.dumps(report))
    return int(any("failed" in part for part in parts))


if __name__ == "__main__":
    sys.exit(main())

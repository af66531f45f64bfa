"""transformers 4.57 in a directory of its own, to ask what it computes with a written folder.

It is installed once, below ~/.cache or where ESPALIER_TRANSFORMERS_4 says, and put before the
packages of the running environment, so that torch need not be there twice.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

PACKAGES = ("transformers==4.57.6", "tokenizers>=0.22,<=0.23.0", "huggingface-hub>=0.34,<1")
"""Without what they need in turn, which the running environment has."""
ASK = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, __version__
assert __version__ == "4.57.6", __version__
folder, found = Path(sys.argv[1]), {}
ids = load_file(folder / "ids.safetensors")["ids"]
for name in sys.argv[2:]:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder / name, dtype=torch.float64, attn_implementation="eager"
        )
    except Exception as problem:
        print(name, type(problem).__name__, str(problem).splitlines()[0])
        continue
    with torch.no_grad():
        found[name] = model.eval()(input_ids=ids, use_cache=False).logits
save_file(found, folder / "logits.safetensors")
"""


def installed() -> Path:
    """The directory with transformers 4.57; skips the test where it cannot be had."""
    home = os.environ.get("ESPALIER_TRANSFORMERS_4")
    target = Path(home) if home else Path.home() / ".cache/espalier-tests/transformers-4.57.6"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            aside = target.with_name(f"{target.name}.{os.getpid()}")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1"]
            command = [*pip, "--target", str(aside), *PACKAGES]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                reason = (run.stderr.strip().splitlines() or ["pip said nothing"])[-1]
                pytest.skip(f"transformers 4.57 cannot be installed: {reason}")
            aside.rename(target)
    return target


def logits_of_older(
    root: Path, names: list[str], ids: torch.Tensor
) -> tuple[dict[str, torch.Tensor], str]:
    """(logits by name of folder in `root`, in float64; what it said of those it refused)."""
    save_file({"ids": ids}, root / "ids.safetensors")
    older = os.environ | {"PYTHONPATH": str(installed()), "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-c", ASK, str(root), *names]
    run = subprocess.run(command, env=older, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return load_file(root / "logits.safetensors"), run.stdout

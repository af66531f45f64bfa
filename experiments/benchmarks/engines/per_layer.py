"""Per-layer students as DeciLM, read by software that others wrote: llama.cpp and mlx-lm.

    python experiments/benchmarks/engines/per_layer.py [--cache runs/engines]
        [--engines llama.cpp mlx] [--random 3]

Cuts students whose layers differ out of tiny random teachers, writes them as DeciLM (`espalier
export --form decilm`), has llama.cpp's own converter make GGUF of them, and compares logits at a
prompt of 100 tokens and the 40 greedy tokens after it with those of the student in transformers.
An engine that cannot be installed is skipped with a line. Ends with a line of JSON, and with status
1 where a student contradicts pruning/engines/decilm.py: refused or computed wrongly where that says
that the engine takes it, right where it says that it does not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from experiments.benchmarks.engines.environments import ENVIRONMENTS, describe
from experiments.benchmarks.engines.teachers import VOCABULARY, write_teacher
from pruning import Architecture, Block, Checkpoint, architecture_of, write_student
from pruning.engines import LLAMA_CPP, MLX, why_not_as_decilm
from pruning.exports import write_decilm

CACHE = ROOT / "runs" / "engines"
TOKENS, GREEDY = 100, 40
"""Of the prompt, and after it."""
EQUAL = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as equal."""
ENGINES = (LLAMA_CPP, MLX)
SIZES = {"num_hidden_layers": 6, "hidden_size": 128, "intermediate_size": 640}
"""Of the teachers, besides those in teachers.py: 8 heads of 16 in 4 groups."""
SHAPES = {
    "KV groups": "L6 H128 A[8/4*2 4/2 4/4 2/1 2/2] F640",
    "FFN": "L6 H128 A8/4 F[640 512 300 256 17 640]",
    "attention left out": "L6 H128 A[- 8/4 -*2 4/2 -] F640",
    "FFN left out": "L6 H128 A8/4 F[- 640 -*2 256 -]",
    "all": "L6 H128 A[- 4/2 - 8/4 2/1 8/4] F[300 - - 640 512 -]",
}
TEACHERS: dict[str, dict[str, int]] = {
    "llama": {},
    "llama 3": {},
    "llama, biases": {},
    "mistral": {},
    "mistral, narrow": {"hidden_size": 96},
    "qwen2": {},
}
"""Teacher -> what differs from SIZES; "narrow" is the one of that name with fewer channels."""


def main() -> int:
    given = _arguments()
    logging.disable_progress_bar()
    engines = [engine for engine in given.engines if _installed(engine, given.cache)]
    shapes = SHAPES | dict(_random_shapes(given.random))
    wrong, counts = 0, dict[str, int]()
    for engine in engines:
        for teacher in TEACHERS:
            folders = [written(teacher, *shape, cache=given.cache) for shape in shapes.items()]
            ids = prompt()
            said = ENVIRONMENTS[engine].read(
                [folder / "decilm" for folder in folders], ids, given.cache, greedy=GREEDY
            )
            for name, folder, answer in zip(shapes, folders, said, strict=True):
                line, equal = compared(folder / "student", ids, answer)
                wrong += equal != _taken(engine, folder / "student")
                counts[engine] = counts.get(engine, 0) + 1
                print(f"{engine}: {teacher}, {name}: {line}", flush=True)
    print(describe())
    print(json.dumps({"students": counts, "wrong": wrong}))
    return int(bool(wrong))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments and models")
    parser.add_argument("--random", type=int, default=3, help="random shapes besides the listed")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    return parser.parse_args()


def _installed(engine: str, cache: Path) -> bool:
    try:
        ENVIRONMENTS[engine].install(cache)
    except (subprocess.CalledProcessError, OSError) as problem:
        print(f"{engine}: skipped, it cannot be installed here: {problem}")
        return False
    return True


def _random_shapes(count: int) -> Iterator[tuple[str, str]]:
    chance = np.random.default_rng(0)
    for number in range(count):
        blocks = []
        for _ in range(SIZES["num_hidden_layers"]):
            kv_heads = int(chance.choice([0, 1, 2, 4]))
            ffn = int(chance.choice([0, int(chance.integers(1, 640)), 640]))
            blocks.append(Block(kv_heads * int(chance.integers(1, 3)), kv_heads, ffn))
        yield f"random {number}", str(Architecture.of_blocks(SIZES["hidden_size"], blocks))


def written(teacher: str, name: str, shape: str, *, cache: Path) -> Path:
    """The folder with a student of this teacher, as it is and as DeciLM."""
    folder = cache / "per-layer" / f"{teacher}-{name}".replace(" ", "-").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    sizes = SIZES | TEACHERS[teacher]
    write_teacher(teacher.removesuffix(", narrow"), folder / "teacher", **sizes)
    architecture = replace(Architecture.parse(shape), hidden=sizes["hidden_size"])
    source = Checkpoint(folder / "teacher")
    write_student(source, architecture, range(architecture.layers), folder / "student")
    (folder / "decilm").mkdir()
    write_decilm(Checkpoint(folder / "student"), folder / "decilm")
    return folder


def prompt() -> list[int]:
    """Token ids of the prompt."""
    chance = torch.Generator().manual_seed(0)
    ids: list[int] = torch.randint(4, VOCABULARY, (TOKENS,), generator=chance).tolist()
    return ids


def _taken(engine: str, folder: Path) -> bool:
    """Whether the engine takes this student's copy, by the table of engines."""
    config = Checkpoint(folder).config
    return not why_not_as_decilm(engine, config, architecture_of(config))


@torch.no_grad()
def compared(folder: Path, given: Sequence[int], answer: dict[str, Any]) -> tuple[str, bool]:
    """What to say of an engine's answer, and whether it is that of the student."""
    if "logits" not in answer:
        return f"refused: {answer['error'][:60]}", False
    found = np.load(answer["logits"])
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = model.generate(
        torch.tensor([given]), max_new_tokens=GREEDY, do_sample=False, eos_token_id=None
    )[0]
    logits = model(input_ids=ids[None], use_cache=False).logits[0].numpy()
    same = int((found[TOKENS - 1 : -1].argmax(1) == ids[TOKENS:].numpy()).sum())
    off = float(np.abs(found[:TOKENS] - logits[:TOKENS]).max() / np.abs(logits).max())
    kinds = len(set(ids[TOKENS:].tolist()))
    line = f"{same} of {GREEDY} greedy tokens equal ({kinds} kinds), logits of the prompt {off:.0e}"
    return line, same == GREEDY and off <= EQUAL


if __name__ == "__main__":
    sys.exit(main())

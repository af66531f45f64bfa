"""Train the demo's teacher: a small Llama on the Python source that is on this machine.

    python experiments/demo/train_teacher.py                 # resumes where it was stopped

Reads the running interpreter's standard library and its installed packages. Files that a study
over either library could hold out (`distill.data.splits`) are never trained on, nor are copies of
them: a file is dropped when half of its long lines stand in held-out files. Writes checkpoint, card
and its loss curve to `experiments/demo/teacher/`; scratch files go to `--work`.
"""

import argparse
import json
import math
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from distill.data import is_held_out
from distill.train import TrainingState

HERE = Path(__file__).resolve().parent
END_OF_TEXT = "<|endoftext|>"
SKIPPED_FOLDERS = {"test", "tests", "testing", "idle_test", "site-packages", "__pycache__"}
LONG_LINE = 30
COPIED_SHARE = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "teacher", help="the checkpoint")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/teacher"), help="scratch, resumable"
    )
    parser.add_argument("--steps", type=int, default=8200, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=32, help="sequences a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens in the vocabulary")
    parser.add_argument("--repeats", type=int, default=3, help="passes over the standard library")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def python_files(root: Path) -> Iterator[tuple[str, str]]:
    """(path relative to `root`, text) of the source files worth learning from."""
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if SKIPPED_FOLDERS & set(name.split("/")[:-1]) or not 200 < path.stat().st_size < 200_000:
            continue
        text = path.read_text("utf-8", errors="replace")
        lines = text.count("\n") + 1
        if len(text) / lines < 80 and text.isascii():
            yield name, text


def long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= LONG_LINE}


def documents(repeats: int, seed: int, *, packages: bool = True) -> tuple[list[str], list[str]]:
    """(training documents in training order, held-out documents of the standard library); without
    the installed packages if not `packages`."""
    paths = sysconfig.get_paths()
    library = list(python_files(Path(paths["stdlib"])))
    installed = list(python_files(Path(paths["purelib"]))) if packages else []
    held_out = [text for name, text in library if is_held_out(name)]
    forbidden = set().union(*(long_lines(text) for text in held_out))

    def kept(files: list[tuple[str, str]]) -> list[str]:
        seen: set[str] = set()
        texts = []
        for name, text in files:
            lines = long_lines(text)
            copied = len(lines & forbidden) > COPIED_SHARE * max(len(lines), 1)
            if not is_held_out(name) and not copied and text not in seen:
                seen.add(text)
                texts.append(text)
        return texts

    training = kept(library) * repeats + kept(installed)
    random.Random(seed).shuffle(training)
    return training, held_out


def train_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be written, and nothing is ever unknown."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, model_max_length=256
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """One flat array of token ids, an end-of-text token after each document."""
    pieces = []
    for start in range(0, len(texts), 256):
        for ids in tokenizer(texts[start : start + 256], verbose=False)["input_ids"]:
            pieces.append(np.asarray([*ids, tokenizer.eos_token_id], dtype=np.uint16))
    return np.concatenate(pieces)


def prepare(options: argparse.Namespace) -> PreTrainedTokenizerFast:
    """Tokeniser and token files, made once."""
    work: Path = options.work
    if (work / "corpus.json").exists():
        made: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
        return made
    work.mkdir(parents=True, exist_ok=True)
    training, held_out = documents(options.repeats, options.seed)
    print(f"{len(training)} training and {len(held_out)} held-out documents", flush=True)
    tokenizer = train_tokenizer(training[: len(training) // 6], options.vocabulary)
    tokenizer.save_pretrained(work / "tokenizer")
    write_tokens(options, tokenizer, training=training, held_out=held_out)
    return tokenizer


def write_tokens(
    options: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    *,
    training: list[str],
    held_out: list[str],
) -> None:
    """The token files that `train` reads, and how much is in them."""
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    facts: dict[str, int] = {}
    for name, texts in (("train", training), ("held_out", held_out)):
        tokens = encode(tokenizer, texts)
        np.save(work / f"{name}.npy", tokens)
        facts |= {f"{name}_tokens": len(tokens), f"{name}_documents": len(texts)}
        facts[f"{name}_bytes"] = sum(len(text) for text in texts)
    (work / "corpus.json").write_text(json.dumps(facts))
    needed = options.steps * options.batch * options.length
    print(json.dumps(facts), f"needed: {needed}", flush=True)


def build_model(options: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(options.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=options.vocabulary,
            hidden_size=192,
            intermediate_size=640,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=options.length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(options.device)


def next_token_loss(model: Callable[..., Any], blocks: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of `blocks` [batch, sequence]."""
    with torch.autocast(blocks.device.type, torch.bfloat16):
        logits = model(input_ids=blocks, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), blocks[:, 1:].flatten())


def blocks_of(tokens: np.ndarray, length: int) -> np.ndarray:
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, blocks: np.ndarray, device: str) -> float:
    losses = []
    for start in range(0, len(blocks), 32):
        chunk = torch.from_numpy(blocks[start : start + 32].astype(np.int64)).to(device)
        losses.append(next_token_loss(model, chunk).item() * len(chunk))
    return sum(losses) / len(blocks)


def train(options: argparse.Namespace, model: Any) -> list[dict[str, float]]:
    """Train to the last step, from the last checkpoint; returns the logged curve."""
    work: Path = options.work
    blocks = blocks_of(np.load(work / "train.npy", mmap_mode="r"), options.length)
    probe = blocks_of(np.load(work / "held_out.npy"), options.length)[:96]
    order = np.concatenate(
        [
            np.random.default_rng([options.seed, epoch]).permutation(len(blocks))
            for epoch in range(4)
        ]
    )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=True,
    )
    curve: list[dict[str, float]] = []
    first = 0
    if (work / "checkpoint").exists():
        meta = TrainingState(model, optimizer).load(work / "checkpoint")
        first, curve = meta["step"], meta["curve"]
        print(f"resumed at step {first}", flush=True)
    forward = torch.compile(model, dynamic=False) if options.compile else model
    warm_up = min(200, max(options.steps // 10, 1))
    started, since = time.monotonic(), first
    for step in range(first, options.steps):
        rate = options.rate * min(1.0, (step + 1) / warm_up)
        rate *= 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = order[step * options.batch : (step + 1) * options.batch]
        batch = torch.from_numpy(blocks[np.sort(chosen)].astype(np.int64)).to(options.device)
        loss = next_token_loss(forward, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % 50 == 0:
            tokens = options.batch * options.length
            speed = (done - since) * tokens / (time.monotonic() - started)
            left = (options.steps - done) * tokens / speed / 60
            print(
                f"step {done} loss {loss.item():.3f} {speed:.0f} tokens/s {left:.0f} min",
                flush=True,
            )
        if done % options.every == 0 or done == options.steps:
            value = held_out_loss(model, probe, options.device)
            curve.append({"tokens": done * options.batch * options.length, "held_out_loss": value})
            print(f"step {done} held-out loss {value:.4f}", flush=True)
            state = TrainingState(model, optimizer)
            state.save(work / "checkpoint", {"step": done, "curve": curve})
    return curve


def sample(model: Any, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    ids = tokenizer(prompt, return_tensors="pt").input_ids.to(model.device)
    out = model.generate(ids, max_new_tokens=90, do_sample=True, temperature=0.6, top_k=40)
    return str(tokenizer.decode(out[0], skip_special_tokens=True)).rstrip()


def card(
    options: argparse.Namespace,
    model: Any,
    samples: list[str],
    figures: dict[str, float],
) -> str:
    parameters = model.num_parameters()
    texts = "\n\n".join(f"```python\n{text}\n```" for text in samples)
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The demo's teacher

A Llama of {parameters:,} parameters ({model.config.num_hidden_layers} layers, hidden
{model.config.hidden_size}, 8 query heads in 2 KV groups, FFN {model.config.intermediate_size},
vocabulary {options.vocabulary}, {options.length} positions), trained from scratch on Python source:
the standard library of Python {sys.version.split()[0]} ({options.repeats} passes) and the packages
installed beside it.

| | |
|---|---|
| tokens trained on | {figures["tokens"]:,} ({figures["tokens"] / parameters:.1f} per parameter) |
| tokens in one pass of the mixture | {figures["train_tokens"]:,} |
| held-out loss (standard library, never trained on) | {figures["loss"]:.4f} nats per token |
| bits per byte on the same | {figures["bits_per_byte"]:.3f} |
| held-out tokens | {figures["held_out_tokens"]:,} |
| command | `python experiments/demo/train_teacher.py{" --compile" if options.compile else ""}` |

`loss_curve.jsonl` holds the held-out loss (on its first 96 sequences) against training tokens:
![held-out loss against training tokens](../../../docs/teacher_loss.png)

Held out are the files whose path relative to the library's root hashes into the held-out tenth
(`distill/data/splits.py`), and all files that copy them.

Completions at temperature 0.6, first try:

{texts}
"""


def main() -> None:
    options = arguments()
    torch.set_float32_matmul_precision("high")
    tokenizer = prepare(options)
    model = build_model(options, tokenizer)
    print(f"{model.num_parameters():,} parameters", flush=True)
    curve = train(options, model)
    model.eval()
    blocks = blocks_of(np.load(options.work / "held_out.npy"), options.length)
    facts = json.loads((options.work / "corpus.json").read_text())
    model.to(torch.bfloat16)
    loss = held_out_loss(model, blocks, options.device)
    figures = facts | {"loss": loss, "tokens": options.steps * options.batch * options.length}
    bytes_per_token = facts["held_out_bytes"] / facts["held_out_tokens"]
    figures["bits_per_byte"] = loss / math.log(2) / bytes_per_token
    torch.manual_seed(options.seed)
    prompts = [
        "def read_lines(path):\n",
        "class Queue:\n    def __init__(self",
        "import os\nimport sys\n",
    ]
    samples = [sample(model, tokenizer, prompt) for prompt in prompts]
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    (options.output / "README.md").write_text(card(options, model, samples, figures))
    lines = [json.dumps(point) for point in curve]
    (options.output / "loss_curve.jsonl").write_text("\n".join(lines) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""Train a small Llama with a BOS before every document: the teacher of `measure.py`.

    python experiments/benchmarks/bos/train_teacher.py       # goes on where it was stopped

Documents are the functions and methods of Python's standard library, and what stands between them.
They are encoded and joined as a study does it (BOS, text, end of text) and cut into blocks that
begin anywhere, so that few of them begin with a BOS. Documents that a study over them holds out are
not trained on. Everything goes to `--work`.
"""

import argparse
import json
import re
import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from distill import read_documents
from distill.data import Encoded, Encoder, is_held_out
from experiments.benchmarks.demo_setting import TEACHER
from experiments.demo.train_teacher import python_files, train

BEGIN_OF_TEXT = "<|startoftext|>"
CORPUS, MODEL = "corpus.jsonl", "teacher"
DEFINITION = re.compile(r"\n\n+(?=\s*(?:@|def |async def |class ))")
SHORTEST = 40
"""Characters of a document."""
BATCH_DOCUMENTS = 512


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/bos"), help="all files")
    parser.add_argument("--steps", type=int, default=800, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(compile=False, device="cpu")
    return parser.parse_args()


def write_corpus(path: Path) -> None:
    """A row for every document of the standard library."""
    with path.open("w") as rows:
        for _, text in python_files(Path(sysconfig.get_path("stdlib"))):
            for piece in DEFINITION.split(text):
                if len(piece) >= SHORTEST:
                    rows.write(json.dumps({"text": piece}) + "\n")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """That of the demo, with a BOS that it puts before every text."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(TEACHER)
    tokenizer.add_special_tokens({"bos_token": BEGIN_OF_TEXT})
    bos = (BEGIN_OF_TEXT, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN_OF_TEXT} $A", pair=None, special_tokens=[bos]
    )
    return tokenizer


def write_tokens(options: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> None:
    """Token files of what is trained on, again and again in other orders, and of what is not."""
    documents = {document.name: document for document in read_documents(str(options.work / CORPUS))}
    names = {
        "train": [name for name in documents if not is_held_out(name)],
        "held_out": [name for name in documents if is_held_out(name)],
    }
    encoder = Encoder.of(tokenizer, False)
    generator = np.random.default_rng(options.seed)
    needed = options.steps * options.batch * options.length
    for split, found in names.items():
        rows: list[np.ndarray] = []
        for start in range(0, len(found), BATCH_DOCUMENTS):
            batch = [documents[name] for name in found[start : start + BATCH_DOCUMENTS]]
            rows += [row.ids for row in encoder.encode(batch) if isinstance(row, Encoded)]
        size = sum(map(len, rows))
        passes = -(-needed // size) if split == "train" else 1
        orders = [generator.permutation(len(rows)) for _ in range(passes)]
        tokens = np.concatenate([rows[index] for order in orders for index in order])
        np.save(options.work / f"{split}.npy", tokens.astype(np.uint16))
        print(f"{split}: {len(rows):,} documents, {size:,} tokens, {passes} passes", flush=True)


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    if not (options.work / "held_out.npy").exists():
        write_corpus(options.work / CORPUS)
        write_tokens(options, tokenizer)
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=options.length,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    print(f"{model.num_parameters():,} parameters", flush=True)
    train(options, model)
    model.save_pretrained(options.work / MODEL)
    tokenizer.save_pretrained(options.work / MODEL)


if __name__ == "__main__":
    main()

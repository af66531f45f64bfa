"""Train small teachers of other types on the demo's text: hybrids and mixtures to prune.

    python experiments/demo/train_other_teachers.py nemotron_h [--output runs/teachers/nemotron_h]
    python experiments/demo/train_other_teachers.py all

Each trains for some minutes on a CPU, from scratch, on the standard library of the running
interpreter in the demo teacher's tokens, and resumes where it was stopped. Much less than what the
demo's teacher was trained on: enough for its parts to differ in what they are worth. Prints, and
writes beside the model, its loss on files never trained on beside that of the demo's teacher and of
the frequencies of tokens alone.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    NemotronHConfig,
    Olmo2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3_5TextConfig,
)

from experiments.demo.train_teacher import (
    blocks_of,
    documents,
    held_out_loss,
    train,
    write_tokens,
)

DEMO_TEACHER = Path(__file__).resolve().parent / "teacher"
LAYERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
"""Letters of the patterns, as Nemotron-H writes them."""


def _nemotron_h(pattern: str, **sizes: Any) -> PretrainedConfig:
    return NemotronHConfig(
        layers_block_type=[LAYERS[letter] for letter in pattern],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        intermediate_size=288,
        mamba_num_heads=8,
        mamba_head_dim=16,
        n_groups=2,
        ssm_state_size=16,
        chunk_size=16,
        **sizes,
    )


def _nemotron_h_dense(**sizes: Any) -> PretrainedConfig:
    return _nemotron_h("M-M-M*-M-M-", **sizes)


def _nemotron_h_moe(**sizes: Any) -> PretrainedConfig:
    return _nemotron_h(
        "MEME*EME",
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=96,
        moe_shared_expert_intermediate_size=96,
        **sizes,
    )


def _qwen3_5(**sizes: Any) -> PretrainedConfig:
    return Qwen3_5TextConfig(
        num_hidden_layers=6,
        layer_types=["linear_attention", "linear_attention", "full_attention"] * 2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=256,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=24,
        **sizes,
    )


def _gpt_oss(**sizes: Any) -> PretrainedConfig:
    return GptOssConfig(
        num_hidden_layers=6,
        num_local_experts=8,
        num_experts_per_tok=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        intermediate_size=96,
        sliding_window=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **sizes,
    )


def _olmo2(**sizes: Any) -> PretrainedConfig:
    return Olmo2Config(
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=288,
        **sizes,
    )


TEACHERS: dict[str, Callable[..., PretrainedConfig]] = {
    "nemotron_h": _nemotron_h_dense,
    "nemotron_h_moe": _nemotron_h_moe,
    "qwen3_5_text": _qwen3_5,
    "gpt_oss": _gpt_oss,
    "olmo2": _olmo2,
}

TIED = ("qwen3_5_text", "gpt_oss", "olmo2")
"""Teachers whose output head is the embedding; Nemotron-H's class does not tie them."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher", choices=[*TEACHERS, "all"])
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "teachers")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--length", type=int, default=128, help="tokens a sequence")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=25, help="steps between checkpoints")
    parser.add_argument("--measured", type=int, default=256, help="held-out sequences at the end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def unigram_loss(training: np.ndarray, held_out: np.ndarray, vocabulary: int) -> float:
    """Cross-entropy in nats of held-out tokens under their frequencies in training, with one more
    of each."""
    counts = np.bincount(training, minlength=vocabulary) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())


def train_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a teacher, trained and written to its folder."""
    options.work = options.output / f"{name}-work"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO_TEACHER)
    if not (options.work / "corpus.json").exists():
        training, held_out = documents(1, options.seed, packages=False)
        write_tokens(options, tokenizer, training=training, held_out=held_out)
    torch.manual_seed(options.seed)
    config = TEACHERS[name](
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        max_position_embeddings=options.length,
        tie_word_embeddings=name in TIED,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(options.device)
    train(options, model)
    model.eval()
    tokens = np.load(options.work / "held_out.npy")
    tokens = tokens[: options.measured * options.length]
    blocks = blocks_of(tokens, options.length)
    demo = AutoModelForCausalLM.from_pretrained(DEMO_TEACHER, dtype=torch.float32)
    figures = {
        "teacher": name,
        "parameters": model.num_parameters(),
        "tokens": options.steps * options.batch * options.length,
        "held_out_loss": held_out_loss(model, blocks, options.device),
        "demo_teacher_loss": held_out_loss(demo.to(options.device), blocks, options.device),
        "unigram_loss": unigram_loss(
            np.load(options.work / "train.npy"), tokens, vocabulary=len(tokenizer)
        ),
    }
    folder = options.output / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    for name in TEACHERS if options.teacher == "all" else [options.teacher]:
        print(json.dumps(train_one(name, options)), flush=True)


if __name__ == "__main__":
    main()

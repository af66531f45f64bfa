"""The most memory that a trial takes, beside the estimate of `search.cluster.trial_memory`.

Each setting is a random Llama, trained at full size for a few steps by a worker of a search.

python experiments/benchmarks/search/trial_memory.py [SETTING ...]
"""

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from distill import evaluation_format, slot_blocks, write_targets
from distill.targets import DRAWS, FULL_VOCABULARY, TargetFormat
from distill.train import LIVE, ResolvedTraining, RunLimits
from pruning import Checkpoint, Ordering, architecture_of, parameter_count, write_sorted_teacher
from search.cluster import FP32, Resources, TrialMemory, ray_cluster
from search.workers import Job, SearchAssets, Slot, WorkerTask

STEPS = 3
SELECTED = 4
"""Sequences of the selection split."""
WATCH_SECONDS = 0.005
RESOURCES = Resources(concurrent=1, cpus=1, gpus=0.0)


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    vocabulary: int
    hidden: int
    layers: int
    ffn: int
    block: int
    training: ResolvedTraining
    tied: bool = True

    def config(self) -> LlamaConfig:
        heads = self.hidden // 64
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 4),
            tie_word_embeddings=self.tied,
        )


def _training(precision: str = "fp32", **settings: Any) -> ResolvedTraining:
    return ResolvedTraining(batch=8, precision=precision, **settings)


SETTINGS = {
    "small vocabulary": Setting(4_096, 256, 6, 1024, 256, _training()),
    "deep": Setting(4_096, 256, 24, 1024, 256, _training()),
    "large vocabulary": Setting(128_000, 256, 4, 1024, 256, _training()),
    "large vocabulary, untied": Setting(128_000, 256, 4, 1024, 256, _training(), tied=False),
    "61M parameters": Setting(32_000, 768, 6, 2048, 512, _training()),
    "the same, micro_batch 1": Setting(32_000, 768, 6, 2048, 512, _training(micro_batch=1)),
    "the same, gradient_checkpointing": Setting(
        32_000, 768, 6, 2048, 512, _training(gradient_checkpointing=True)
    ),
    "the same, bf16": Setting(32_000, 768, 6, 2048, 512, _training("bf16")),
    "the same, live teacher": Setting(32_000, 768, 6, 2048, 512, _training(targets=LIVE)),
}


def assets_of(
    config: PretrainedConfig, training: ResolvedTraining, block: int, *, steps: int, root: Path
) -> SearchAssets:
    """A workspace with a random teacher of this shape, and what a student of it reads in so many
    steps."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(root / "teacher")
    whole = Ordering.identity(architecture_of(model.config))
    write_sorted_teacher(Checkpoint(root / "teacher"), whole, root / "sorted")
    count, vocabulary = steps * training.batch, config.vocab_size
    shape = (count + SELECTED, block)
    blocks = np.random.default_rng(0).integers(0, vocabulary, shape).astype(np.uint32)
    (root / "corpus").mkdir()
    (root / "corpus" / "facts.json").write_text(json.dumps({"block": block}))
    for split, some in (("train", blocks[:count]), ("selection", blocks[count:])):
        np.save(root / "corpus" / f"{split}.npy", some)
    write_targets(
        model,
        blocks[count:],
        target_format=evaluation_format(vocabulary),
        directory=root / "selection",
    )
    stored = None
    if training.targets != LIVE:
        stored = root / "train"
        form = TargetFormat.sampled(vocabulary, DRAWS)
        if vocabulary <= FULL_VOCABULARY:
            form = TargetFormat.whole(vocabulary)
        write_targets(
            model, blocks[:count][slot_blocks(count, 0)], target_format=form, directory=stored
        )
    return SearchAssets(
        sorted_teacher=root / "sorted",
        teacher=root / "teacher",
        vocabulary=vocabulary,
        corpus=root / "corpus",
        training_targets=stored,
        selection_targets=root / "selection",
        test_targets=root / "selection",
        training=training,
        seed=0,
        device="cpu",
    )


def peaks(setting: Setting) -> dict[str, float]:
    """Bytes of a worker's process: resident when it starts, resident at most, the most of that
    which no file holds, and the estimate; and the parameters of its student."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        training, block = setting.training, setting.block
        assets = assets_of(setting.config(), training, block, steps=STEPS, root=root)
        config = Checkpoint(root / "teacher").config
        shape = architecture_of(config)
        size = int(parameter_count(config, shape))
        tokens = STEPS * setting.training.batch * setting.block
        limits = RunLimits(tokens, checkpoint=root / "checkpoint", checkpoint_seconds=0.0)
        job = Job("measured", shape, limits)
        task = WorkerTask(job=job, assets=assets, resources=RESOURCES, output=root / "full")
        slot = Slot.remote()  # type: ignore[attr-defined]
        pid = ray.get(slot.__ray_call__.remote(lambda _: __import__("os").getpid()))
        before, over = resident(pid), threading.Event()
        found: dict[str, float] = {"start": before["VmRSS"], "of no file": 0}

        def watch() -> None:
            while not over.is_set():
                now = resident(pid)
                found["of no file"] = max(found["of no file"], now["RssAnon"])
                time.sleep(WATCH_SECONDS)

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = ray.get(slot.train.remote(task))
        over.set()
        watcher.join()
        found["measured"] = resident(pid)["VmHWM"]
        ray.kill(slot)
        assert failed is None, failed
    memory = TrialMemory(config, setting.training, setting.block, FP32 * size)
    return found | {"estimate": float(memory.process(shape, size)), "parameters": size}


def resident(pid: int) -> dict[str, int]:
    """Bytes of a process, by the names of /proc."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(size) * 1024 for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help=f"some of: {', '.join(SETTINGS)}; or all")
    chosen = parser.parse_args().settings or list(SETTINGS)
    torch.set_num_threads(1)
    with ray_cluster("trial memory", RESOURCES, dashboard=False):
        for name in chosen:
            found = peaks(SETTINGS[name])
            row = ", ".join(f"{what} {value / 1e6:,.0f}M" for what, value in found.items())
            print(f"{name}: {row}, ratio {found['estimate'] / found['measured']:.2f}", flush=True)


if __name__ == "__main__":
    main()

"""The most memory that a trial takes, beside the estimate of `search.cluster.trial_memory`.

Each setting is a random Llama, trained at full size for a few steps by a worker of a search.

python experiments/benchmarks/search/trial_memory.py [SETTING ...]
"""

import argparse
import gc
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from distill import evaluation_format, slot_blocks, write_targets
from distill.backend import process_memory
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
    head_dim: int = 64
    steps: int = STEPS
    selected: int = SELECTED

    def config(self) -> LlamaConfig:
        heads = self.hidden // self.head_dim
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // next(n for n in (4, 3, 2, 1) if heads % n == 0),
            max_position_embeddings=max(2048, self.block),
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

ON_GPU = {
    "135M": Setting(49_152, 576, 30, 1536, 1024, _training("bf16")),
    "1B, micro_batch 2": Setting(128_256, 2048, 16, 8192, 2048, _training("bf16", micro_batch=2)),
    "1B, micro_batch 2, live teacher": Setting(
        128_256, 2048, 16, 8192, 2048, _training("bf16", micro_batch=2, targets=LIVE)
    ),
}
"""Settings that are for a GPU."""


class Trained(Protocol):
    """What a run is measured of."""

    @property
    def block(self) -> int: ...
    @property
    def training(self) -> ResolvedTraining: ...
    @property
    def steps(self) -> int: ...
    @property
    def selected(self) -> int: ...
    def config(self) -> PretrainedConfig: ...


def assets_of(setting: Trained, root: Path, device: str) -> SearchAssets:
    """A workspace with a random teacher and what a student of it reads."""
    config, training, block = setting.config(), setting.training, setting.block
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(root / "teacher")
    whole = Ordering.identity(architecture_of(model.config))
    write_sorted_teacher(Checkpoint(root / "teacher"), whole, root / "sorted")
    count, vocabulary = setting.steps * training.batch, config.vocab_size
    shape = (count + setting.selected, block)
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
        device=device,
    )


def measured(setting: Setting, device: str, resources: Resources) -> dict[str, float]:
    """Bytes of a worker's process: resident when it starts, resident at most, the most of that
    which no file holds, and the estimate; and the parameters of its student."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        assets = assets_of(setting, root, device)
        gc.collect()
        before_gpu = _used_of_gpu(device)
        config = Checkpoint(root / "teacher").config
        shape = architecture_of(config)
        size = int(parameter_count(config, shape))
        tokens = setting.steps * setting.training.batch * setting.block
        limits = RunLimits(tokens, checkpoint=root / "checkpoint", checkpoint_seconds=0.0)
        job = Job("measured", shape, limits)
        task = WorkerTask(job=job, assets=assets, resources=resources, output=root / "full")
        slot = Slot.options(num_gpus=resources.gpus).remote()  # type: ignore[attr-defined]
        pid = ray.get(slot.__ray_call__.remote(lambda _: __import__("os").getpid()))
        before, over = process_memory(Path(f"/proc/{pid}")), threading.Event()
        found: dict[str, float] = {"start": before["VmRSS"], "of no file": 0}

        def watch() -> None:
            while not over.is_set():
                now = process_memory(Path(f"/proc/{pid}"))
                found["of no file"] = max(found["of no file"], now["RssAnon"])
                time.sleep(WATCH_SECONDS)

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = ray.get(slot.train.remote(task))
        over.set()
        watcher.join()
        found["measured"] = process_memory(Path(f"/proc/{pid}"))["VmHWM"]
        if device == "cuda":
            found |= ray.get(slot.__ray_call__.remote(lambda _: _peaks_of_gpu()))
            left = ray.get(slot.__ray_call__.remote(lambda _: _reserved()))
            found["gpu context"] = _used_of_gpu(device) - before_gpu - left
        ray.kill(slot)
        assert failed is None, failed
    memory = TrialMemory(config, setting.training, setting.block, FP32 * size)
    on_gpu = device == "cuda"
    found["estimate"] = float(memory.process(shape, size, beside_gpu=on_gpu))
    if on_gpu:
        found["gpu estimate"] = float(memory.on_gpu(shape, size))
    return found | {"parameters": size}


def _used_of_gpu(device: str) -> int:
    """Bytes of the GPU that all processes have, less what this one's tensors may have kept."""
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    free, whole = torch.cuda.mem_get_info()
    return whole - free - torch.cuda.memory_reserved()


def _peaks_of_gpu() -> dict[str, float]:
    """Bytes of the tensors at most, and of what the allocator took for them."""
    return {
        "gpu tensors": torch.cuda.max_memory_allocated(),
        "gpu measured": torch.cuda.max_memory_reserved(),
    }


def _reserved() -> int:
    return torch.cuda.memory_reserved()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help=f"some of: {', '.join(SETTINGS)}; or all")
    chosen = parser.parse_args().settings or list(SETTINGS)
    torch.set_num_threads(1)
    with ray_cluster("trial memory", RESOURCES):
        for name in chosen:
            found = measured(SETTINGS[name], "cpu", RESOURCES)
            row = ", ".join(f"{what} {value / 1e6:,.0f}M" for what, value in found.items())
            print(f"{name}: {row}, ratio {found['estimate'] / found['measured']:.2f}", flush=True)


if __name__ == "__main__":
    main()

"""The parts of the check on a GPU: each measures one thing and returns what its JSON line holds."""

import gc
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.data import SplitSizes
from distill.train import TrainingSettings
from experiments.benchmarks.demo_setting import LIBRARY_FILES, TEACHER
from experiments.benchmarks.distill.kd_kinds import CACHED, CE, LIVE, SAMPLED, Bench
from experiments.benchmarks.distill.kd_setting import PRESETS, make_student, make_teacher
from experiments.benchmarks.distill.kd_step import measure as measure_steps
from experiments.benchmarks.pruning.cut_large import EIGHT, FOUR, write_checkpoint
from experiments.benchmarks.search.trial_memory import ON_GPU, measured
from experiments.gpu import losses as loss_benchmark
from pruning import Checkpoint, Ordering, architecture_of, measure_importance, write_student
from search.cluster import Resources, ray_cluster
from search.config import BudgetConfig, HalvingConfig, ResourceConfig, SearchConfig
from search.results import TRIALS
from search.run import run_search

TARGET_BLOCKS = 32
CALIBRATION, CALIBRATION_TOKENS = 64, 1024
"""Sequences that importance is measured on, and their tokens."""


def steps(output: Path) -> dict[str, Any]:
    """Tokens/s and model FLOPs utilisation of a 1B student, as it is and compiled."""
    rows = []
    for compiled, kinds in ((False, (SAMPLED, LIVE, CE)), (True, (SAMPLED, LIVE))):
        preset = replace(PRESETS["1b"], rounds=3, compile=compiled)
        with tempfile.TemporaryDirectory(dir=output) as scratch:
            bench = Bench(preset, "cuda", "bf16", Path(scratch), only=kinds)
            rows.append(measure_steps(bench))
    return {"rows": rows}


def losses(output: Path) -> dict[str, Any]:
    """The loss alone beside Liger Kernel's."""
    return {"rows": loss_benchmark.measure(loss_benchmark.Shapes(), rounds=5)}


def targets(output: Path) -> dict[str, Any]:
    """Tokens/s of the stored targets of a 3B teacher, by form."""
    preset = replace(PRESETS["1b"], batch=TARGET_BLOCKS, steps=1)
    teacher = make_teacher(preset, "cuda")
    speeds = {}
    for kind in (SAMPLED, CACHED):
        for counted in (False, True):
            with tempfile.TemporaryDirectory(dir=output) as scratch:
                bench = Bench(preset, "cuda", "bf16", Path(scratch), only=(kind,))
                started = time.perf_counter()
                bench.write_targets_of(teacher)
                torch.cuda.synchronize()
                if counted:
                    tokens = TARGET_BLOCKS * preset.sequence
                    speeds[kind] = round(tokens / (time.perf_counter() - started))
    return {"teacher_parameters": teacher.num_parameters(), "tokens_per_second": speeds}


def cut(output: Path) -> dict[str, Any]:
    """Seconds of an 8B shape's importance and of its cut to 4B, and the GPU memory it takes."""
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        folder = Path(scratch)
        write_checkpoint(EIGHT, folder / "teacher")
        started = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(
            folder / "teacher", dtype=torch.bfloat16, device_map={"": "cuda"}
        )
        loaded = time.perf_counter() - started
        shape = (CALIBRATION, CALIBRATION_TOKENS)
        ids = torch.randint(0, EIGHT.vocab_size, shape, device="cuda")
        started = time.perf_counter()
        importance = measure_importance(model, list(ids.split(1)))
        measured = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated()
        del model
        gc.collect()
        torch.cuda.empty_cache()
        checkpoint = Checkpoint(folder / "teacher")
        ordering = Ordering.from_importance(importance, architecture_of(checkpoint.config))
        started = time.perf_counter()
        layers = list(range(FOUR.layers))
        write_student(checkpoint, FOUR, layers, folder / "student", ordering=ordering)
        written = time.perf_counter() - started
    return {
        "load_seconds": round(loaded, 1),
        "importance_seconds": round(measured, 1),
        "importance_tokens_per_second": round(ids.numel() / measured),
        "importance_peak_gb": round(peak / 1e9, 1),
        "cut_seconds": round(written, 1),
    }


def random_teacher(folder: Path) -> None:
    """A checkpoint of the 1B shape with the demo's tokenizer."""
    model = make_student(PRESETS["1b"], "cuda").bfloat16()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TEACHER).save_pretrained(folder)
    del model
    gc.collect()
    torch.cuda.empty_cache()


def search(output: Path) -> dict[str, Any]:
    """A search of eight candidates of a 1B shape, two at once on the GPU."""
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        folder = Path(scratch)
        random_teacher(folder / "teacher")
        started = time.monotonic()
        outcome = run_search(
            SearchConfig(
                teacher=str(folder / "teacher"),
                corpus=sysconfig.get_path("stdlib"),
                workspace=folder / "study",
                budget=BudgetConfig(0.5, 0.05),
                trials=8,
                short_tokens=131_072,
                full_tokens=262_144,
                winners=1,
                ties=0,
                evidence="none",
                seeds=1,
                calibration=64,
                block=1024,
                training=TrainingSettings(batch=8, micro_batch=4),
                halving=HalvingConfig(first_share=0.5),
                resources=ResourceConfig(gpus=0.5, concurrent=2),
                splits=SplitSizes(selection_tokens=16_384, test_tokens=16_384),
                corpus_files=LIBRARY_FILES,
                device="cuda",
            )
        )
        assert outcome is not None, "no other driver is there"
        results = outcome.results
        return {
            "seconds": round(time.monotonic() - started, 1),
            "slot_seconds_of_trials": round(results.ledger[TRIALS].seconds, 1),
            "training_share": results.training_share,
            "finished_trials": results.asked.finished_trials,
        }


def memory(output: Path) -> dict[str, Any]:
    """What trials take of the GPU and of the machine, beside the estimate."""
    resources = Resources(concurrent=1, cpus=1, gpus=1.0)
    with ray_cluster("trial memory", resources):
        return {name: measured(setting, "cuda", resources) for name, setting in ON_GPU.items()}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "steps": steps,
    "losses": losses,
    "targets": targets,
    "cut": cut,
    "search": search,
    "memory": memory,
}
"""By name, in the order in which they run."""

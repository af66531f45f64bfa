"""What a teacher that computes in its file's type changes: importance, targets, KL of cuts, memory.

The demo's teacher, whose file is bf16, in bf16 and in fp32; memory on a larger random Llama.

python experiments/benchmarks/distill/teacher_precision.py [--teacher DIR] [--corpus DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from distill import Corpus, Packing, evaluate_live, pack_corpus, read_documents
from experiments.benchmarks.demo_setting import LIBRARY_FILES, add_teacher_and_corpus
from pruning import Importance, Ordering, architecture_of, cut_student, measure_importance
from workspace.importance import CalibrationBatches
from workspace.models import ModelSource

BLOCK = 256
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CHILD = """
import re, sys, threading, time
from pathlib import Path
import torch
from workspace.models.model_source import ModelSource
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before, peak, done = anonymous(), [0], []
def watch():
    while not done:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
ModelSource(Path(sys.argv[1])).load(torch.device("cpu"), getattr(torch, sys.argv[2]))
done.append(True)
watcher.join()
print(peak[0] - before)
"""


def packed(source: str, teacher: ModelSource, directory: Path) -> Corpus:
    documents = read_documents(source, LIBRARY_FILES)
    return pack_corpus(documents, teacher.tokenizer, packing=Packing(BLOCK), directory=directory)


def seconds_of(model: Any, blocks: Any) -> float:
    with torch.no_grad():
        start = time.perf_counter()
        for batch in CalibrationBatches(blocks):
            model(input_ids=batch, use_cache=False)
    return time.perf_counter() - start


def alike(one: Importance, other: Importance) -> dict[str, float]:
    """Share of the upper half of an axis that is the same in both."""
    found = {}
    for axis in ("hidden", "heads", "ffn"):
        tops = []
        for scores in (getattr(one, axis), getattr(other, axis)):
            rows = scores.reshape(-1, scores.shape[-1])
            tops.append(rows.topk(rows.shape[-1] // 2, -1).indices)
        same = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(*tops, strict=True)]
        found[axis] = float(np.mean(same)) / tops[0].shape[-1]
    return found


def kls_of_cuts(
    teacher: ModelSource,
    models: Mapping[str, Any],
    *,
    scores: Mapping[str, Importance],
    selection: Any,
) -> dict[str, dict[str, float]]:
    """Of three cuts: by the type that they are ordered in, and that of the teacher beside them."""
    whole = architecture_of(teacher.config)
    cuts = {
        "ffn 3/4": replace(whole, ffn=whole.ffn * 3 // 4),
        "hidden 7/8": replace(whole, hidden=whole.hidden * 7 // 8),
        "a layer less": replace(whole, layers=whole.layers - 1),
    }
    kls: dict[str, dict[str, float]] = {}
    for cut, shape in cuts.items():
        kls[cut] = {}
        for name in TYPES:
            ordering = Ordering.from_importance(scores[name], whole)
            layers = ordering.kept_layers(shape.layers)
            student: Any = cut_student(teacher.checkpoint, shape, layers, ordering=ordering)
            for judge in TYPES:
                found, _ = evaluate_live(student, models[judge], blocks=selection)
                kls[cut][f"ordered in {name}, held against {judge}"] = found.means()["kl"]
    return kls


def peak_bytes(parameters: int) -> dict[str, int]:
    """Size of a bf16 file, and what loading it takes beside its mapped pages."""
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        num_hidden_layers=max(1, parameters // (16 << 20)),
        tie_word_embeddings=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
        found = {"file": sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))}
        for name, dtype in TYPES.items():
            kind = str(dtype).removeprefix("torch.")
            command = [sys.executable, "-c", CHILD, folder, kind]
            found[name] = int(
                subprocess.check_output(command, text=True, cwd=ROOT).splitlines()[-1]
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_teacher_and_corpus(parser)
    parser.add_argument("--calibration", type=int, default=256, help="sequences for importance")
    parser.add_argument("--parameters", type=int, default=300_000_000, help="to measure memory on")
    options = parser.parse_args()
    teacher = ModelSource(options.teacher)
    models = {name: teacher.load(torch.device("cpu"), dtype) for name, dtype in TYPES.items()}
    whole = architecture_of(teacher.config)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = packed(options.corpus, teacher, Path(scratch) / "corpus")
        selection = corpus.blocks("selection")
        calibration = corpus.calibration(options.calibration)
        batches = CalibrationBatches(calibration)
        times = {name: seconds_of(model, calibration) for name, model in models.items()}
        scores = {
            name: measure_importance(model, batches, checkpoint=teacher.checkpoint)
            for name, model in models.items()
        }
        itself, fp32_ce = evaluate_live(models["bf16"], models["fp32"], blocks=selection)
        kls = kls_of_cuts(teacher, models, scores=scores, selection=selection)
    same = alike(*scores.values())
    layers = {
        name: Ordering.from_importance(each, whole).layers.tolist() for name, each in scores.items()
    }
    memory = peak_bytes(options.parameters)
    print(f"importance: share of the upper half that is the same: {same}; layers {layers}")
    print(
        f"KL of the bf16 teacher to the fp32 one {itself.means()['kl']:.2e}, cross-entropy "
        f"{itself.means()['ce']:.4f} against {fp32_ce.mean():.4f}; pass {times}"
    )
    for cut, row in kls.items():
        print(f"selection KL of {cut}: {row}")
    print(f"memory to load and ask once: { ({k: f'{v / 1e6:.0f} MB' for k, v in memory.items()}) }")
    result = {
        "benchmark": "teacher_precision",
        "model": str(whole),
        "same_upper_half": {axis: round(share, 4) for axis, share in same.items()},
        "layers": layers,
        "kl_bf16_to_fp32": itself.means()["kl"],
        "ce": {"bf16": itself.means()["ce"], "fp32": float(fp32_ce.mean())},
        "selection_kl": kls,
        "pass_seconds": {name: round(value, 3) for name, value in times.items()},
        "bytes": memory,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

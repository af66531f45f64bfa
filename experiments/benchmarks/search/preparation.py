"""How much faster all slots together compute what a study computes once, and whether to the same.

    python experiments/benchmarks/search/preparation.py [--workers 2] [--nodes 8] [--output FILE]

Importance and targets of a study on the demo's teacher, computed by one process with one thread,
by one with as many threads as there are workers, and by slots with a thread each; every file is
compared byte for byte. Then the scheduling alone: pieces that sleep, on as many simulated nodes of
Ray on this machine, where the efficiency is the time slept over the time of all slots.
"""

import argparse
import hashlib
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import ray
import torch
from ray.cluster_utils import Cluster

from common.files import write_file_atomically
from common.log import plain_lines
from experiments.benchmarks.demo_setting import LIBRARY_FILES, add_teacher_and_corpus
from search.cluster import Resources, Room, ray_cluster
from search.config import SearchConfig
from search.inputs import Inputs
from search.run import Preparation
from search.workers import Slot, SlotCompute, SlotPool, TaskPool
from workspace.layout import RAY_ERRORS, Workspace
from workspace.pieces import Compute, compute_here

KINDS = ("importance-*.safetensors", "sorted-*/*.safetensors", "targets-*/**/*.npy")
"""What is compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="slots, with a thread each")
    parser.add_argument("--calibration", type=int, default=1024, help="sequences")
    parser.add_argument("--tokens", type=int, default=500_000, help="of the training targets")
    parser.add_argument("--nodes", type=int, default=8, help="simulated; 0 leaves them out")
    parser.add_argument("--pieces", type=int, default=16, help="for each simulated node")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a simulated piece sleeps")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    add_teacher_and_corpus(parser)
    options = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "preparation"}
    with tempfile.TemporaryDirectory() as scratch:
        if options.workers:
            figures |= computed(options, Path(scratch))
        if options.nodes:
            figures |= scheduled(options, Path(scratch))
    for name, value in figures.items():
        print(f"{name:>32} {value}")
    print(json.dumps(figures))
    if options.output:
        write_file_atomically(options.output, json.dumps(figures, indent=2) + "\n")


def computed(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds and bytes of a real preparation, by one process and by slots."""
    workers = options.workers
    resources = Resources(workers, 1, 0.0)
    seconds, digests = {}, {}
    for name, threads in (("one thread", 1), ("one process", workers)):
        torch.set_num_threads(threads)
        seconds[name], digests[name] = prepared(options, scratch / name)
    torch.set_num_threads(1)
    with ray_cluster("preparation", resources):
        slots = SlotPool(Room(resources), Slot)
        warm = [slots.take() for _ in range(workers)]
        ray.get([slot.__ray_ready__.remote() for slot in warm])
        for slot in warm:
            slots.give_back(slot)
        compute = SlotCompute(slots, None, scratch / RAY_ERRORS)
        seconds["slots"], digests["slots"] = prepared(options, scratch / "slots", compute)
        slots.close()
    return {
        "workers": workers,
        "seconds, one thread": round(seconds["one thread"], 1),
        f"seconds, one process, {workers} threads": round(seconds["one process"], 1),
        f"seconds, {workers} slots": round(seconds["slots"], 1),
        "times faster than one thread": round(seconds["one thread"] / seconds["slots"], 2),
        "times faster than one process": round(seconds["one process"] / seconds["slots"], 2),
        "files": len(digests["slots"]),
        "same bytes as one thread": digests["slots"] == digests["one thread"],
        "same bytes as one process": digests["slots"] == digests["one process"],
    }


@plain_lines()
def prepared(
    options: argparse.Namespace, folder: Path, compute: Compute = compute_here
) -> tuple[float, dict[str, str]]:
    """Seconds that importance, sorting and targets take, and a digest of each file."""
    logging.getLogger(__name__).info(folder.name)
    config = SearchConfig(
        teacher=str(options.teacher),
        corpus=options.corpus,
        workspace=folder,
        corpus_files=LIBRARY_FILES,
        full_tokens=options.tokens,
        calibration=options.calibration,
        device="cpu",
    )
    workspace, inputs = Workspace(folder), Inputs.read(config)
    workspace.make()
    corpus, training = inputs.packed(None, folder), inputs.resolved_training(None)
    preparation = Preparation(inputs, training, workspace, corpus, 1, compute=compute)
    began = time.monotonic()
    preparation.run()
    taken = time.monotonic() - began
    files = sorted(file for kind in KINDS for file in folder.glob(kind))
    return taken, {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@ray.remote
class Sleeper:
    """A slot whose pieces sleep; a plain one, or every process would import torch."""

    def write(self, seconds: float) -> None:
        """Take so long."""
        time.sleep(seconds)


def scheduled(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Efficiency of the scheduling on simulated nodes with a slot each."""
    nodes, pieces = options.nodes, options.nodes * options.pieces
    resources = Resources(nodes, 1, 0.0)
    with simulated(nodes):
        slots = SlotPool(Room(resources), Sleeper)
        pool = TaskPool("sleeping", "a sleeper failed", slots, scratch / RAY_ERRORS)

        def start(slot: Any, seconds: float) -> Any:
            return slot.write.remote(seconds)

        list(pool.results([0.0] * nodes * 4, start=start))  # the processes are there then
        began = time.monotonic()
        done = list(pool.results([options.seconds] * pieces, start=start))
        taken = time.monotonic() - began
        slots.close()
    ideal = math.ceil(len(done) / nodes) * options.seconds
    return {
        "simulated nodes": nodes,
        "sleeping pieces": pieces,
        "seconds of a piece": options.seconds,
        "efficiency of scheduling": round(ideal / taken, 4),
    }


@contextmanager
def simulated(nodes: int) -> Iterator[None]:
    """Ray with a head that computes nothing, and so many nodes of one processor."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()

"""What runs in Ray's worker processes: a trial, and a full run. Readable in Ray's dashboard.

Every trial starts a process that imports this module, so it imports neither Optuna nor pandas.
"""

import json
import traceback
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.util.metrics import Gauge

from distill.checkpoint import write_directory_atomically
from distill.writing import gathered_weights, write_model
from search.candidate import Assets, CandidateRun, Job

TAGS = ("study", "trial")


class CandidateTrial(tune.Trainable):
    """One trial in a process of its own; each step is one report."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray reserves for the trial."""
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        self.job: Job = config["job"]
        self.run: CandidateRun | None = None
        self.gauges = {
            name: Gauge(f"espalier_{name}", description=text, tag_keys=TAGS)
            for name, text in (
                ("kl", "forward KL to the teacher on the selection split, nats per token"),
                ("tokens", "tokens trained on"),
            )
        }

    def __repr__(self) -> str:
        return str(self.config["job"])

    def step(self) -> dict[str, Any]:
        try:
            if self.run is None:
                torch.set_num_threads(self.config["cpus"])
                self.run = CandidateRun(self.config["assets"], self.job)
            result = self.run.next_report()
        except Exception as problem:
            traceback.print_exc()
            return {"failed": f"{type(problem).__name__}: {problem}", "done": True}
        tags = {"study": self.config["study"], "trial": self.job.name}
        self.gauges["kl"].set(result["curve"][-1]["kl"], tags)
        self.gauges["tokens"].set(result["tokens"], tags)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Runs keep their own checkpoints, by origin."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Runs find their own checkpoints, by origin."""


@ray.remote(max_restarts=0)
class FullTrainer:
    """One full run in a process of its own, readable in Ray's dashboard."""

    def __init__(self, label: str, assets: Assets, job: Job, dtype: str, threads: int):
        self.label = label
        self.assets, self.job, self.dtype, self.threads = assets, job, dtype, threads

    def __repr__(self) -> str:
        return self.label

    def train(self, output: str) -> str | None:
        """Train to the end and write the result; returns why it failed, or None."""
        try:
            torch.set_num_threads(self.threads)
            run = CandidateRun(self.assets, self.job)
            result = run.next_report()
            while not result["done"]:
                result = run.next_report()
            write_full_result(run, result, getattr(torch, self.dtype), Path(output))
        except Exception as problem:
            traceback.print_exc()
            return f"{type(problem).__name__}: {problem}"
        return None


def write_full_result(
    run: CandidateRun, result: dict[str, Any], dtype: torch.dtype, output: Path
) -> None:
    """Write the student as a stock checkpoint, with what was measured while it trained."""
    selection = run.selection or run.evaluate()
    summary = {name: result[name] for name in ("tokens", "seconds", "resumed_tokens", "curve")}
    summary["selection"] = selection.to_dict()

    with run.distillation.averaged():
        weights = gathered_weights(run.student, dtype)

    def fill(directory: Path) -> None:
        write_model(run.student, weights, directory / "model")
        (directory / "done.json").write_text(json.dumps(summary))

    write_directory_atomically(output, fill)

"""What runs in Ray's worker processes: a trial, and a full run. Readable in Ray's dashboard.

Every trial starts a process that imports this module, so it imports neither Optuna nor pandas.
"""

import contextlib
import json
import traceback
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayError
from ray.util.metrics import Gauge

from distill.checkpoint import write_directory_atomically
from distill.writing import write_model
from search.candidate import Assets, CandidateRun, Job
from search.desk import Desk
from search.files import Files
from search.ray_errors import one_line, sentence
from search.values import in_ascii

TAGS = ("study", "trial")


class CandidateTrial(tune.Trainable):
    """One trial in a process of its own; each step is one report."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What Ray reserves for the trial."""
        wanted = {"CPU": config["cpus"], "GPU": config["gpus"], "memory": config.get("memory", 0)}
        return tune.PlacementGroupFactory([{name: size for name, size in wanted.items() if size}])

    def setup(self, config: dict[str, Any]) -> None:
        self.job: Job = config["job"]
        self.desk: Desk | None = None
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
                self.desk = Desk(self.config["assets"], self.job, self.config.get("files"))
                self.run = run_at(self.desk)
            result = self.run.next_report()
            if result["done"] and self.config.get("output") is not None:
                self._write(self.run, result)
        except Exception as problem:
            return {"failed": in_short(problem), "details": traceback.format_exc(), "done": True}
        tags = {"study": in_ascii(self.config["study"]), "trial": in_ascii(self.job.name)}
        self.gauges["kl"].set(result["curve"][-1]["kl"], tags)
        self.gauges["tokens"].set(result["tokens"], tags)
        return result

    def _write(self, run: CandidateRun, result: dict[str, Any]) -> None:
        """Keep the student, where a full run of it would be this one again."""
        assert self.desk is not None
        dtype = getattr(torch, self.config["dtype"])
        with self.desk.output(Path(self.config["output"])) as directory:
            write_full_result(run, {**result, "from_trial": True}, dtype, directory)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Runs keep their own checkpoints, by origin."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Runs find their own checkpoints, by origin."""

    def cleanup(self) -> None:
        """At the end of the trial, also of one that is stopped early."""
        if self.desk is not None:
            self.desk.close()


def in_short(problem: Exception) -> str:
    """One line: what was raised here, or what happened to Ray meanwhile."""
    return sentence(problem) if isinstance(problem, RayError) else one_line(problem)


def run_at(desk: Desk) -> CandidateRun:
    """The run of a desk, from its checkpoint if there is one."""
    return CandidateRun(desk.assets, desk.job, after_save=desk.after_save)


@ray.remote(max_restarts=0)
class FullTrainer:
    """One full run in a process of its own, readable in Ray's dashboard."""

    def __init__(
        self,
        label: str,
        assets: Assets,
        job: Job,
        dtype: str,
        threads: int,
        files: Files | None = None,
    ):
        """`files` is how a worker reaches a workspace that it may not see."""
        self.label, self.files = label, files
        self.assets, self.job, self.dtype, self.threads = assets, job, dtype, threads

    def __repr__(self) -> str:
        return self.label

    def train(self, output: str) -> tuple[str, str] | None:
        """Train to the end and write the result; returns why it failed and the traceback, or None.

        The reason is one line and begins with the name of an exception.
        """
        try:
            torch.set_num_threads(self.threads)
            with contextlib.closing(Desk(self.assets, self.job, self.files)) as desk:
                run = run_at(desk)
                result = run.next_report()
                while not result["done"]:
                    result = run.next_report()
                with desk.output(Path(output)) as directory:
                    write_full_result(run, result, getattr(torch, self.dtype), directory)
        except Exception as problem:
            return in_short(problem), traceback.format_exc()
        return None


def write_full_result(
    run: CandidateRun, result: dict[str, Any], dtype: torch.dtype, output: Path
) -> None:
    """Write the student as a stock checkpoint, with what was measured while it trained."""
    selection = run.selection or run.evaluate()
    summary = {name: result[name] for name in ("tokens", "seconds", "resumed_tokens", "curve")}
    summary["from_trial"] = result.get("from_trial", False)
    summary["selection"] = selection.to_dict()
    block = run.held_out.blocks[0]
    weights, summary["answers"] = run.distillation.as_written(dtype, block)

    def fill(directory: Path) -> None:
        write_model(run.student, weights, directory / "model")
        (directory / "done.json").write_text(json.dumps(summary))

    write_directory_atomically(output, fill)

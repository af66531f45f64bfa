"""How a study was run: date, command, machine and versions."""

import contextlib
import platform
import re
import shlex
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.machine import Machine
from common.version import installed_version
from search.config.objectives import KL, Objectives
from search.config.units import COSTS
from search.results.facts import ObjectiveResult, RunFacts

LIBRARIES = ("torch", "transformers", "datasets", "optuna", "ray", "numpy")
"""What results depend on beside this program."""
PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]*@")
"""Of an address, with the user's name."""
UNITS = {
    KL: "nats per token",
    "parameters": "parameters",
    "non_embedding": "parameters",
    "active": "parameters",
    "memory": "bytes",
    "flops": "FLOP per token",
    "prefill_ms": "ms",
    "decode_ms": "ms per step",
}
"""Of the values of an objective."""
assert UNITS.keys() == {KL, *COSTS}


def run_facts(device: torch.device) -> RunFacts:
    """Of this process and machine, now."""
    return RunFacts(
        finished=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=shown_command(sys.argv),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        machine=f"{_processor()}, {Machine.here()}, {platform.system()} {platform.release()}",
        versions={
            "espalier": installed_version(),
            "python": platform.python_version(),
            **{name: found for name in LIBRARIES if (found := _version(name))},
        },
    )


def shown_command(arguments: list[str]) -> str:
    """A command line without the program's folder and without passwords in addresses."""
    program, *options = arguments or [""]
    called = Path(program).name  # of the command itself it may be two words, which stay two
    shown = " ".join([*map(shlex.quote, called.split()), *map(shlex.quote, options)])
    return PASSWORD.sub(r"\1:***@", shown)


def objective_results(objectives: Objectives) -> list[ObjectiveResult]:
    """Names of what was looked for, each with its unit and direction."""
    return [
        ObjectiveResult(name, UNITS.get(name, "score of lm-eval"), direction)
        for name, direction in zip(objectives.names, objectives.directions, strict=True)
    ]


def _processor() -> str:
    """What it calls itself; where it does not say it, its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None

"""A cut at experiment trackers: one run with its shape and what was measured of it."""

from pathlib import Path
from typing import Any

from common.fingerprint import fingerprint
from common.trackers import SafeTrackers, open_trackers, require_installed
from experiments.prune.config import PruneConfig

PROJECT = "espalier prune"
"""Group of all cuts at trackers."""


def trackers_of(config: PruneConfig) -> SafeTrackers:
    """Those that the user asks for. What they keep on this machine goes beside the output, which is
    a model and nothing else. Raises SearchError where one cannot be used."""
    output = config.output.absolute()
    require_installed(config.log_to)
    if not config.log_to:
        return SafeTrackers({})
    return SafeTrackers(open_trackers(config.log_to, log_folder(output), group=PROJECT))


def log_folder(output: Path) -> Path:
    """Where trackers keep what is on this machine."""
    folder = output.with_name(f"{output.name}-log")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def track_cut(trackers: SafeTrackers, config: PruneConfig, facts: dict[str, Any]) -> None:
    """Send what prune.json says of the student."""
    run = fingerprint(str(config.output.absolute()), facts["architecture"])
    sizes = {name: size for name, size in facts["architecture"].items() if isinstance(size, int)}
    told = {"kind": "cut", "teacher": facts["teacher"], "parameters": facts["parameters"], **sizes}
    trackers.begin(run, name=f"cut {config.output.name}", facts=told)
    measured: dict[str, float] = facts.get("test", {})
    trackers.log(run, 0, measured)
    trackers.finish(run, {"state": "complete"}, files=[config.output / "prune.json"])
    trackers.leave()

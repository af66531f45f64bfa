"""A whole search on a GPU that two trials share."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.driver import ENVIRONMENT, ROOT, SMALL, TEACHER


def test_trials_share_a_gpu(tmp_path: Path) -> None:
    settings = SMALL | {
        "teacher": TEACHER,
        "corpus": sysconfig.get_path("stdlib"),
        "corpus_files.include": ["*.py"],
        "workspace": tmp_path / "study",
        "device": "cuda",
        "resources.gpus": 0.5,
        "resources.concurrent": 2,
    }
    options = [
        f"--{name}={json.dumps(value) if isinstance(value, list) else value}"
        for name, value in settings.items()
    ]
    command = [sys.executable, "experiments/run_search.py", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert results["winners"]
    assert "on cuda" in done.stdout

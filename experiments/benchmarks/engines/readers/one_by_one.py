"""Asks an engine about one checkpoint after another, each in a process of its own: an engine may
abort on what it does not take. Runs in the engine's environment, without the project."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reader = Callable[[Path, list[int], dict[str, Any]], tuple[Any, list[str]]]
"""(folder, token ids, request) -> logits [positions, vocabulary] as a numpy array, and names of the
tensors that the quantised format leaves out."""


def answer(read: Reader, prepare: Callable[[dict[str, Any]], None] = lambda request: None) -> None:
    """Answer the request whose file is named on the command line; `prepare` imports what all
    processes need."""
    file = Path(sys.argv[1])
    request = json.loads(file.read_text())
    prepare(request)
    answers = []
    for folder in map(Path, request["folders"]):
        said = folder / f"{file.stem}.json"
        said.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _read_one(read, folder, request, said)
        _, status = os.waitpid(child, 0)
        if said.exists():
            answers.append(json.loads(said.read_text()))
        else:
            answers.append({"error": f"it aborted (status {status})"})
        print(folder.parent.name, folder.name, answers[-1].get("error", "read"), flush=True)
    file.with_suffix(".answers").write_text(json.dumps(answers))


def import_models(request: dict[str, Any]) -> None:
    """Import the transformers classes of all checkpoints, which takes longer than to run them."""
    import transformers

    for folder in map(Path, request["folders"]):
        for name in json.loads((folder / "config.json").read_text())["architectures"]:
            getattr(transformers, name)


def _read_one(read: Reader, folder: Path, request: dict[str, Any], said: Path) -> None:
    import numpy as np

    try:
        logits, unquantised = read(folder, request["ids"], request)
        np.save(said.with_suffix(".npy"), np.asarray(logits, dtype="float32"))
        found = {"logits": str(said.with_suffix(".npy")), "unquantised": unquantised}
    except BaseException as problem:
        traceback.print_exc()
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        found = {"error": text[:400]}
    said.write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)

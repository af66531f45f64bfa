"""Logits from CTranslate2, of what its converter makes.

Where it refuses a prompt that is longer than the window, those of the prompt's beginning.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter
from one_by_one import answer, import_models


def read(folder: Path, ids: list[int], request: dict[str, Any]) -> tuple[Any, list[str]]:
    with tempfile.TemporaryDirectory() as scratch:
        converted = TransformersConverter(str(folder)).convert(f"{scratch}/model")
        generator = ctranslate2.Generator(converted, device="cpu", intra_threads=1)
        try:
            logits = generator.forward_batch([ids], return_log_probs=False)
        except (ValueError, RuntimeError):
            window = json.loads((folder / "config.json").read_text()).get("sliding_window")
            if window is None or window >= len(ids):
                raise
            logits = generator.forward_batch([ids[:window]], return_log_probs=False)
        return np.array(logits)[0], []


if __name__ == "__main__":
    answer(read, import_models)

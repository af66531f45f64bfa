"""Logits from CTranslate2, of what its converter makes."""

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
        logits = generator.forward_batch([ids], return_log_probs=False)
        return np.array(logits)[0], []


if __name__ == "__main__":
    answer(read, import_models)

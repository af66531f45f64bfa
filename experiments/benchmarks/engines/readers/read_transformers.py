"""Logits from transformers 4."""

from pathlib import Path
from typing import Any

import torch
from one_by_one import answer, import_models
from transformers import AutoModelForCausalLM


@torch.no_grad()
def read(folder: Path, ids: list[int], request: dict[str, Any]) -> tuple[Any, list[str]]:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy(), []


if __name__ == "__main__":
    answer(read, import_models)

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from distill.checkpoint import (
    load_training_state,
    save_training_state,
    write_directory_atomically,
    write_file_atomically,
)


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight  # tied, as embeddings may be
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_model_optimiser_and_facts_come_back(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    step(model, optimizer)
    save_training_state(tmp_path / "c", model, optimizer, {"step": 1, "curve": [{"kl": 0.5}]})
    again, its_optimizer = trained(1)
    meta = load_training_state(tmp_path / "c", again, its_optimizer)
    assert meta == {"step": 1, "curve": [{"kl": 0.5}]}
    for pair in ((model, optimizer), (again, its_optimizer)):
        step(*pair)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for key, value in optimizer.state[ours].items():
            assert torch.equal(value, its_optimizer.state[theirs][key]), key


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    step(model, optimizer)
    save_training_state(tmp_path / "c", model, optimizer, {"step": 1})
    files = {file.name for file in (tmp_path / "c").iterdir()}
    assert files == {"state-00000.safetensors", "meta.json"}
    assert json.loads((tmp_path / "c" / "meta.json").read_text()) == {"step": 1, "processes": 1}
    with safe_open(tmp_path / "c" / "state-00000.safetensors", framework="pt") as saved:
        assert "model.0.weight" in saved.keys()  # noqa: SIM118


def test_a_checkpoint_takes_the_place_of_the_last(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for number in range(3):
        step(model, optimizer)
        save_training_state(tmp_path / "c", model, optimizer, {"step": number})
    assert load_training_state(tmp_path / "c", *trained(1)) == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        (directory / "file").write_text("old")

    def fail(directory: Path) -> None:
        (directory / "file").write_text("half")
        raise OSError("disk full")

    write_directory_atomically(tmp_path / "deep" / "d", fill)
    with pytest.raises(OSError, match="disk full"):
        write_directory_atomically(tmp_path / "deep" / "d", fail)
    assert (tmp_path / "deep" / "d" / "file").read_text() == "old"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["d"]


def test_file_is_replaced_in_one_go(tmp_path: Path) -> None:
    write_file_atomically(tmp_path / "f", "one")
    write_file_atomically(tmp_path / "f", "zwei ü")
    assert (tmp_path / "f").read_text(encoding="utf-8") == "zwei ü"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]

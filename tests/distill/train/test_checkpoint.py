import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from distill.train.checkpoint import TrainingState

STATE = "state-00000.safetensors"


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
    TrainingState(model, optimizer).save(tmp_path / "c", {"step": 1, "curve": [{"kl": 0.5}]})
    again, its_optimizer = trained(1)
    meta = TrainingState(again, its_optimizer).load(tmp_path / "c")
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
    TrainingState(model, optimizer).save(tmp_path / "c", {"step": 1})
    files = {file.name for file in (tmp_path / "c").iterdir()}
    assert files == {STATE, "meta.json"}
    assert json.loads((tmp_path / "c" / "meta.json").read_text()) == {"step": 1, "processes": 1}
    with safe_open(tmp_path / "c" / STATE, framework="pt") as saved:
        assert "model.0.weight" in saved.keys()  # noqa: SIM118


def test_a_checkpoint_takes_the_place_of_the_last(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for number in range(3):
        step(model, optimizer)
        TrainingState(model, optimizer).save(tmp_path / "c", {"step": number})
    assert TrainingState(*trained(1)).load(tmp_path / "c") == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_what_is_written_aside_is_the_state_as_it_was(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    step(model, optimizer)
    state = TrainingState(model, optimizer)
    state.save(tmp_path / "then", {"step": 1})
    with ThreadPoolExecutor(1) as executor:
        stepped = Event()
        executor.submit(stepped.wait)  # before the writing
        saving = state.begin_saving(tmp_path / "aside", {"step": 1}, executor)
        step(model, optimizer)
        stepped.set()
        saving.finish()
    assert saving.written
    then, aside = (load_file(tmp_path / name / STATE) for name in ("then", "aside"))
    assert then.keys() == aside.keys()
    for name, value in then.items():
        assert torch.equal(aside[name], value), name


def test_a_fault_of_writing_aside_is_raised_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    state = TrainingState(model, optimizer)
    state.save(tmp_path / "c", {"step": 0})
    with ThreadPoolExecutor(1) as executor:
        saving = state.begin_saving(tmp_path / "c", {"step": {1, 2}}, executor)  # no JSON
        saving.wait()
        with pytest.raises(TypeError, match="not JSON serializable"):
            saving.finish()
    assert state.load(tmp_path / "c") == {"step": 0}
    assert [file.name for file in tmp_path.iterdir()] == ["c"]

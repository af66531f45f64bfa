import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from distill.train.checkpoint import TrainingState


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
    assert files == {"state-00000.safetensors", "meta.json"}
    assert json.loads((tmp_path / "c" / "meta.json").read_text()) == {"step": 1, "processes": 1}
    with safe_open(tmp_path / "c" / "state-00000.safetensors", framework="pt") as saved:
        assert "model.0.weight" in saved.keys()  # noqa: SIM118


def test_a_checkpoint_takes_the_place_of_the_last(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for number in range(3):
        step(model, optimizer)
        TrainingState(model, optimizer).save(tmp_path / "c", {"step": number})
    assert TrainingState(*trained(1)).load(tmp_path / "c") == {"step": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["c"]

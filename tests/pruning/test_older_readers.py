"""Students as transformers 4.57 reads them: the same logits, far along the text too."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pruning import Checkpoint, write_student
from pruning.engines import ENGINES, TRANSFORMERS_4
from tests.older_transformers import installed, logits_of_older
from tests.pruning.models import CONFIGS, build_teacher, difference, random_ordering, smaller_than

LENGTH, FAR = 160, 100
CONTEXT = 256
BASE = 500_000.0
"""Far from every default, and so that rotations differ visibly within `LENGTH` tokens."""
TOLERANCE = 1e-9
"""Of the largest logit. Models run in float64; what both versions do in fp32, norms and rotations,
they do in the same order."""
FAMILY = {kind.model_type: name for name, (kind, _) in reversed(CONFIGS.items())}  # type: ignore[attr-defined]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "factor": 2.5}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


def rope(variant: str, **scaling: Any) -> dict[str, Any]:
    """Configuration values with a context and rotary bases that no class has as its default."""
    kind, values = CONFIGS[variant]
    if kind.model_type == "gpt2":  # type: ignore[attr-defined]
        return {"n_positions": CONTEXT}
    known = values["rope_parameters"]
    one_base = kind.model_type == "olmo3"  # type: ignore[attr-defined]  # transformers 4 knows one
    if "full_attention" in known:
        full, local = known["full_attention"], known["sliding_attention"]
        parameters = {
            "full_attention": full | {"rope_theta": BASE} | scaling,
            "sliding_attention": local | {"rope_theta": BASE if one_base else 50_000.0},
        }
    else:
        parameters = known | {"rope_theta": BASE} | scaling
    return {"max_position_embeddings": CONTEXT, "rope_parameters": parameters}


@dataclass(frozen=True)
class Case:
    variant: str
    values: dict[str, Any]
    older: dict[str, Any] | None = None
    """Keys of the teacher's config.json instead of those of transformers 5, where it has not."""


READ = ENGINES[TRANSFORMERS_4].model_types
CASES = {name: Case(variant, rope(variant)) for name, variant in FAMILY.items() if name in READ} | {
    "llama, llama3 scaling": Case("llama-gqa-tied", rope("llama-gqa-tied", **LLAMA3)),
    "llama, yarn": Case("llama-mha", rope("llama-mha", **YARN)),
    "llama, dynamic": Case("llama-mha", rope("llama-mha", **DYNAMIC)),
    "qwen2, yarn": Case("qwen2", rope("qwen2", **YARN)),
    "mistral, linear": Case("mistral-gqa", rope("mistral-gqa", **LINEAR)),
    "olmo2, linear": Case("olmo2", rope("olmo2", **LINEAR)),
    "gemma3, linear": Case("gemma3", rope("gemma3", **LINEAR)),
    "phi3, longrope": Case("phi3-long", rope("phi3-long")),
    "gpt-neox, all rotary": Case("gpt-neox", rope("gpt-neox", partial_rotary_factor=1.0)),
    "mixed experts": Case("qwen3-moe-mixed", rope("qwen3-moe-mixed")),
    "older llama": Case(
        "llama-gqa-tied",
        rope("llama-gqa-tied", **LLAMA3),
        {"rope_theta": BASE, "rope_scaling": LLAMA3, "torch_dtype": "float32"},
    ),
    "older gemma3": Case(
        "gemma3",
        rope("gemma3", **LINEAR),
        {"rope_theta": BASE, "rope_local_base_freq": 50_000.0, "rope_scaling": LINEAR}
        | {"sliding_window_pattern": 2},
    ),
    "older gpt-neox": Case(
        "gpt-neox", rope("gpt-neox"), {"rotary_emb_base": int(BASE), "rotary_pct": 0.5}
    ),
    "older phi3": Case(
        "phi3-long",
        rope("phi3-long"),
        {
            "rope_theta": BASE,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 2.1, 2.2, 2.3],
            },
        },
    ),
}


def write_teacher(case: Case, folder: Path) -> Any:
    model = build_teacher(case.variant, **case.values)
    model.save_pretrained(folder)
    if case.older is not None:
        values = json.loads((folder / "config.json").read_text())
        for name in ("rope_parameters", "dtype", "_sliding_window_pattern"):
            values.pop(name, None)
        (folder / "config.json").write_text(json.dumps(values | case.older))
    return model


def logits(folder: Path, ids: Tensor) -> Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tensor, Tensor, str]]:
    """By case: logits of this transformers, of 4.57, and what that said where it refused."""
    installed()
    root = tmp_path_factory.mktemp("students")
    ids = torch.randint(3, 96, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    names = {name: f"student-{number}" for number, name in enumerate(CASES)}
    mine = {}
    for name, case in CASES.items():
        model = write_teacher(case, root / f"teacher-{names[name]}")
        source = Checkpoint(root / f"teacher-{names[name]}")
        shape = smaller_than(model.config)
        ordering = random_ordering(model.config)
        write_student(source, shape, [0, 2], root / names[name], ordering=ordering)
        mine[name] = logits(root / names[name], ids)
    names["without"] = "without"
    shutil.copytree(root / names["llama"], root / "without")
    config = json.loads((root / "without" / "config.json").read_text())
    del config["rope_theta"]
    (root / "without" / "config.json").write_text(json.dumps(config))
    mine["without"] = logits(root / "without", ids)
    found, said = logits_of_older(root, list(names.values()), ids)

    def of(name: str) -> tuple[Tensor, Tensor, str]:
        return mine[name], found.get(names[name], torch.zeros(0)), said

    return of


def test_every_family_that_it_is_said_to_read_is_asked() -> None:
    asked = {CONFIGS[case.variant][0].model_type for case in CASES.values()}  # type: ignore[attr-defined]
    assert asked == READ


@pytest.mark.process
@pytest.mark.parametrize("name", CASES)
def test_a_student_computes_the_same_in_transformers_4(name: str, both: Any) -> None:
    mine, older, said = both(name)
    assert older.numel(), said
    assert difference(older[:, FAR:], mine[:, FAR:]) <= TOLERANCE
    assert difference(older, mine) <= TOLERANCE


@pytest.mark.process
def test_a_student_without_the_older_key_would_be_told_apart(both: Any) -> None:
    mine, older, _ = both("without")
    assert difference(older[:, FAR:], mine[:, FAR:]) > 0.01

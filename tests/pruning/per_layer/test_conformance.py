"""What students whose layers differ must do, one suite for all rows of the table.

They compute what oracles compute that silence parts of the teacher, cost what the formulas say, and
train, generate and survive their files like any model. In float64, where equal is equal.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from pruning import (
    ATTENTION,
    FAMILIES,
    FFN,
    Architecture,
    Checkpoint,
    Ordering,
    Slice,
    Workload,
    architecture_of,
    cut_student,
    family_of,
    forward_flops,
    load_student,
    memory_bytes,
    parameter_count,
    write_slice,
    write_sorted_teacher,
)
from pruning.families.table.shared_experts import SHARED_EXPERTS
from tests.exactness import EXACT
from tests.pruning.models import (
    ANGLES,
    CONFIGS,
    TYPES,
    build_teacher,
    difference,
    installed,
    logits,
    per_layer_of,
    shuffling_ordering,
    token_ids,
)
from tests.pruning.oracle import silenced

CONTEXT = 9
DEEP: tuple[int, ...] = (0, 1, 2)
SHALLOW: tuple[int, ...] = (0, 2)
TESTED = [*TYPES, "olmoe", "flex-olmo", "minimax-m2", "granitemoe", "gpt-oss"]


@dataclass
class Case:
    model: Any
    ordering: Ordering
    sorted: Checkpoint
    students: dict[tuple[int, ...], Architecture]
    """By the layers that they keep."""
    root: Path

    @property
    def config(self) -> Any:
        return self.model.config

    def folder(self, kept: tuple[int, ...]) -> Path:
        return self.root / f"student-{len(kept)}"

    def student(self, kept: tuple[int, ...]) -> Any:
        """Cut, written, and loaded again."""
        folder = self.folder(kept)
        if not folder.exists():
            cut = Slice.of(self.config, self.students[kept], kept_layers=list(kept))
            write_slice(self.sorted, cut, output=folder)
        return load_student(folder)


@pytest.fixture(scope="module", params=TESTED)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    model = build_teacher(request.param, dtype=torch.float64)
    model.save_pretrained(root / "teacher")
    ordering = shuffling_ordering(model.config)
    write_sorted_teacher(Checkpoint(root / "teacher"), ordering, root / "sorted")
    students = {kept: per_layer_of(model.config, kept, seed=len(kept)) for kept in (DEEP, SHALLOW)}
    return Case(model, ordering, Checkpoint(root / "sorted"), students, root)


def test_every_family_without_a_recurrent_state_is_tested() -> None:
    kinds: list[Any] = [CONFIGS[variant][0] for variant in TESTED]
    whole = {name for name, family in FAMILIES.items() if family.ssm_tensors}
    whole |= {row.model_type for row in SHARED_EXPERTS}
    whole |= {name for name, family in FAMILIES.items() if family.layer_heads}
    assert {kind.model_type for kind in kinds} == installed(FAMILIES) - whole


def test_a_student_computes_what_its_oracle_computes(case: Case) -> None:
    whole = logits(case.model)
    for kept, architecture in case.students.items():
        oracle = silenced(case.model, case.ordering, architecture, list(kept))
        expected = logits(oracle)
        assert difference(expected, whole) > 0.01
        assert difference(logits(case.student(kept)), expected) <= EXACT, architecture


def test_what_is_written_is_what_is_cut(case: Case, tmp_path: Path) -> None:
    architecture, written = case.students[DEEP], case.student(DEEP)
    cut = cut_student(case.sorted, architecture, list(DEEP), dtype=torch.float64)
    assert architecture_of(written.config) == architecture_of(cut.config) == architecture
    assert type(written) is type(cut) is not type(case.model)
    shares_norm = bool(family_of(case.config).shared_norms)  # it stays for the attention
    assert sub_blocks(cut) == {
        (index, part)
        for index, block in enumerate(architecture.blocks)
        for part in (ATTENTION, FFN)
        if block.has(part) or (part == FFN and shares_norm)
    }
    cut.save_pretrained(tmp_path)
    for folder, student in ((case.folder(DEEP), written), (tmp_path, load_student(tmp_path))):
        Checkpoint(folder).check()
        assert student.config.blocks == architecture.blocks
        again = student.state_dict()
        assert again.keys() == cut.state_dict().keys()
        assert all(torch.equal(v, again[name]) for name, v in cut.state_dict().items())


def sub_blocks(student: Any) -> set[tuple[int, str]]:
    """Layers and their parts that have parameters."""
    family = family_of(student.config)
    layers = student.get_submodule(family.layer_prefix)
    return {
        (index, family.sub_block(name))
        for index, layer in enumerate(layers)
        for name, _ in layer.named_parameters()
    }


@pytest.mark.usefixtures("float64")
def test_costs_are_those_of_the_model(case: Case) -> None:
    for kept, architecture in case.students.items():
        student, work = case.student(kept), Workload(3, CONTEXT, 2)
        parameters = parameter_count(case.config, architecture, kept=kept)
        assert parameters == student.num_parameters()
        assert parameters == parameter_count(student.config, architecture)
        counted = 2 * (parameters + cached_values(student, architecture))
        assert memory_bytes(case.config, architecture, work, kept=kept) == counted
        assert memory_bytes(student.config, architecture, work) == counted
    flops = forward_flops(case.config, case.students[DEEP], CONTEXT, kept=DEEP)
    assert flops == pytest.approx(counted_flops(case.student(DEEP)), rel=1e-9)


def cached_values(student: Any, architecture: Architecture) -> int:
    """Keys and values that a model holds for three texts of the context."""
    cache: Any = DynamicCache(config=student.config)
    with torch.no_grad():
        student(input_ids=token_ids(3, CONTEXT), past_key_values=cache, use_cache=True)
    held = 0
    for layer, block in zip(cache.layers, architecture.blocks, strict=True):
        assert layer.get_seq_length() == CONTEXT
        for values in (layer.keys, layer.values) if block.has_attention else ():
            # a full window waits for the next token with one place less than it attends to
            held += values.numel() + values[:, :, 0].numel() * (values.shape[2] < CONTEXT)
    return held


def counted_flops(student: Any) -> float:
    """Per token, of decoding the context token by token, as torch counts them."""
    student.set_attn_implementation("eager")
    if architecture_of(student.config).experts:  # whose products torch does not count
        student.set_experts_implementation("eager")
    cache = DynamicCache(config=student.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for token in token_ids(1, CONTEXT).T:
            student(input_ids=token[None], past_key_values=cache, use_cache=True)
    angles = [f for name, f in counter.get_flop_counts().items() if ANGLES.search(name)]
    return (counter.get_total_flops() - sum(sum(f.values()) for f in angles)) / CONTEXT


@pytest.mark.usefixtures("float64")
def test_generation_is_the_same_with_a_cache_and_without(case: Case) -> None:
    student = case.student(DEEP)
    cached = greedy(student, use_cache=True)
    assert cached.shape == (2, 5 + CONTEXT)
    assert torch.equal(greedy(student, use_cache=False), cached)


def greedy(model: Any, *, use_cache: bool) -> Tensor:
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    tokens: Tensor = model.generate(
        token_ids(2, 5), max_new_tokens=CONTEXT, use_cache=use_cache, **options
    )
    return tokens


@pytest.mark.usefixtures("float64")
def test_training_goes_on_after_a_save_as_if_nothing_had_been(case: Case, tmp_path: Path) -> None:
    straight = case.student(DEEP)
    before = deepcopy(straight)
    step(straight, step(straight, None))
    state = step(before, None)
    before.save_pretrained(tmp_path / "half")
    resumed = load_student(tmp_path / "half")
    step(resumed, state)
    assert all(torch.equal(a, b) for a, b in pairs(resumed, straight))


def pairs(first: Any, second: Any) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(first.state_dict().values(), second.state_dict().values(), strict=True)


def step(model: Any, state: Any) -> Any:
    """One step of training; returns the optimiser's state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    if state is not None:
        optimizer.load_state_dict(state)
    ids = token_ids(2, 13)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    optimizer.zero_grad()
    return optimizer.state_dict()

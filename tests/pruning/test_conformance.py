"""What every family must do, one suite for all rows of the table.

The sorted teacher computes what the teacher computes; slices compute what oracles compute; what is
written is loaded by stock transformers. In float64, where equal is equal on any processor.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from pruning import (
    AXES,
    FAMILIES,
    ORDERING_FILE,
    Architecture,
    Checkpoint,
    Ordering,
    architecture_of,
    cut_student,
    family_of,
    is_legal,
    parameter_count,
    write_sorted_teacher,
    write_student,
)
from pruning.families import experts_per_token
from pruning.families.shapes import axis_rows
from tests.exactness import EXACT, fp32_tolerance
from tests.pruning.models import (
    CONFIGS,
    MIXED,
    VARIANTS,
    build_teacher,
    difference,
    going_together,
    heads_divide_hidden,
    hidden_follows_heads,
    installed,
    logits,
    shuffling_ordering,
    smaller_than,
    token_ids,
)
from tests.pruning.oracle import silenced


@dataclass
class Case:
    variant: str
    model: Any
    ordering: Ordering
    teacher: Checkpoint
    sorted: Checkpoint
    computed: dict[Architecture, Tensor] = field(default_factory=dict)
    """Logits of the oracles that were asked."""

    @property
    def sizes(self) -> Architecture:
        return architecture_of(self.model.config)

    def kept(self, architecture: Architecture) -> list[int]:
        return self.ordering.kept_layers(architecture.layers)

    def student(self, architecture: Architecture, output: Path) -> Any:
        """Cut, written and loaded by stock transformers."""
        write_student(self.sorted, architecture, self.kept(architecture), output)
        return AutoModelForCausalLM.from_pretrained(output, dtype=torch.float64)

    @cached_property
    def logits(self) -> Tensor:
        """The teacher's."""
        return logits(self.model)

    def oracle(self, architecture: Architecture) -> Tensor:
        """Logits that the student of `architecture` must compute."""
        if architecture not in self.computed:
            oracle = silenced(self.model, self.ordering, architecture, self.kept(architecture))
            self.computed[architecture] = logits(oracle)
        return self.computed[architecture]


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = tmp_path_factory.mktemp(request.param)
    model = build_teacher(request.param, dtype=torch.float64)
    model.save_pretrained(directory / "teacher")
    ordering = shuffling_ordering(model.config)
    teacher = Checkpoint(directory / "teacher")
    teacher.check()
    write_sorted_teacher(teacher, ordering, directory / "sorted")
    return Case(request.param, model, ordering, teacher, Checkpoint(directory / "sorted"))


def shapes(case: Case) -> dict[str, Architecture]:
    """A student smaller on one axis, for every axis that the family lets be cut alone, and all."""
    smaller = smaller_than(case.model.config)
    tied = hidden_follows_heads(case.model.config)
    found = {"all": smaller}
    for axis in AXES:
        value = getattr(smaller, axis)
        if value == getattr(case.sizes, axis):
            continue
        change = {axis: value}
        if case.sizes.heads == case.sizes.kv_heads and axis in ("heads", "kv_heads"):
            change = {"heads": smaller.heads, "kv_heads": smaller.kv_heads}
        elif axis == "ssm_heads" and case.sizes.ssm_head_dim > 1:  # inside every group
            change = {"ssm_heads": 2 * case.sizes.ssm_groups}
        elif axis == "ssm_groups":  # whole groups
            change = {"ssm_groups": 1, "ssm_heads": case.sizes.ssm_heads // case.sizes.ssm_groups}
        elif axis == "heads":  # inside every group
            change = {"heads": 2 * case.sizes.kv_heads}
        elif axis == "kv_heads":  # whole groups
            change = {"kv_heads": 2, "heads": 2 * case.sizes.heads // case.sizes.kv_heads}
        ffn, shared = case.sizes.expert_ffn, case.sizes.shared_ffn
        if shared == ffn and axis in ("expert_ffn", "shared_ffn") and smaller.shared_ffn:
            change = {"expert_ffn": smaller.expert_ffn, "shared_ffn": smaller.shared_ffn}
        elif axis == "shared_ffn" and not is_legal(
            case.model.config, replace(case.sizes, **change)
        ):  # one expert less
            change = {"shared_ffn": ffn}
        if tied and axis in ("hidden", "heads", "kv_heads"):
            change = {"hidden": smaller.hidden, "heads": 4, "kv_heads": 4}
        elif heads_divide_hidden(case.model.config):
            heads = change.get("heads", case.sizes.heads)
            if (change.get("hidden", case.sizes.hidden)) % heads:
                change |= {"hidden": 36}
        follows = family_of(case.model.config).hidden_follows
        if follows and axis == "hidden":
            of, each = follows(case.model.config)
            change[of] = int(change["hidden"] / each)
        found[axis] = going_together(case.model.config, replace(case.sizes, **change))
    return found


def test_every_family_has_a_variant() -> None:
    assert {kind.model_type for kind, _ in CONFIGS.values()} == installed(FAMILIES)  # type: ignore[attr-defined]


def test_sorted_teacher_is_the_teacher(case: Case) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(case.sorted.directory, dtype=torch.float64)
    assert difference(logits(loaded), case.logits) <= EXACT
    case.sorted.check()
    stored = Ordering.load(case.sorted.directory / ORDERING_FILE)
    assert torch.equal(stored.hidden, case.ordering.hidden)


def test_full_size_slice_is_the_teacher(case: Case, tmp_path: Path) -> None:
    student = case.student(case.sizes, tmp_path / "student")
    assert difference(logits(student), case.logits) <= EXACT


def test_every_unsorted_tensor_is_noticed(case: Case) -> None:
    teacher = load_file(case.teacher.directory / "model.safetensors")
    tensors = load_file(case.sorted.directory / "model.safetensors")
    axes = {t.name: t.axes for t in family_of(case.model.config).tensors(case.model.config)}
    ordered = {n for n, a in axis_rows(case.model.config).items() if a.size not in ("", "layers")}
    noticed = 0
    model = AutoModelForCausalLM.from_pretrained(case.sorted.directory, dtype=torch.float32)
    family = family_of(case.model.config)
    in_memory = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    loaded = {
        name: in_memory[own]
        for name in tensors
        if (own := f"{family.module_of(name)}.{name.rpartition('.')[2]}") in in_memory
    }
    for name, tensor in tensors.items():
        if not ordered & set("+".join(axes[name]).split("+")):  # such as norms of a head
            assert torch.equal(tensor, teacher[name])
            continue
        assert not torch.equal(tensor, teacher[name]), name
        if name in loaded:
            loaded[name].data.copy_(teacher[name])
            mutant = model
        else:  # a piece of what is one tensor in memory
            mutated = {**tensors, name: teacher[name]}
            kind = type(case.model)
            mutant = kind.from_pretrained(
                None, config=case.model.config, state_dict=mutated, dtype=torch.float32
            )
        assert difference(rounded_logits(mutant), case.logits) > 1e-3, name
        if name in loaded:
            loaded[name].data.copy_(tensor)
        noticed += 1
    assert difference(rounded_logits(model), case.logits) < 1e-4
    assert noticed > 10


@torch.no_grad()
def rounded_logits(model: Any) -> Tensor:
    """As `logits`, of a model in fp32: twice as fast."""
    found: Tensor = model(input_ids=token_ids(3, 17), use_cache=False).logits
    return found


def test_a_slice_computes_what_its_oracle_computes(case: Case, tmp_path: Path) -> None:
    for axis, architecture in shapes(case).items():
        expected = case.oracle(architecture)
        assert difference(expected, case.logits) > 0.01, axis
        student = case.student(architecture, tmp_path / axis)
        assert difference(logits(student), expected) <= EXACT, axis


def test_a_slice_in_fp32_is_as_near_as_rounding_allows(case: Case) -> None:
    architecture = smaller_than(case.model.config)
    student = cut_student(case.sorted, architecture, case.kept(architecture))
    assert student.dtype == torch.float32
    expected = case.oracle(architecture)
    assert difference(logits(student), expected) <= fp32_tolerance(case.model.config)


def test_cutting_the_teacher_itself_gives_the_same_student(case: Case, tmp_path: Path) -> None:
    architecture = smaller_than(case.model.config)
    kept = case.kept(architecture)
    write_student(case.teacher, architecture, kept, tmp_path / "direct", ordering=case.ordering)
    write_student(case.sorted, architecture, kept, tmp_path / "sorted")
    direct = load_file(tmp_path / "direct" / "model.safetensors")
    by_way = load_file(tmp_path / "sorted" / "model.safetensors")
    assert direct.keys() == by_way.keys()
    assert all(torch.equal(tensor, by_way[name]) for name, tensor in direct.items())


@pytest.mark.usefixtures("float64")
def test_written_student_is_an_ordinary_trainable_checkpoint(case: Case, tmp_path: Path) -> None:
    architecture = smaller_than(case.model.config)
    kept = case.kept(architecture)
    loaded = case.student(architecture, tmp_path / "student")
    in_memory = cut_student(case.sorted, architecture, kept, dtype=torch.float64)
    assert difference(logits(loaded), logits(in_memory)) <= EXACT
    Checkpoint(tmp_path / "student").check()
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    if family_of(case.model.config).has_head_dim:
        assert config["head_dim"] == 8
    read = architecture_of(AutoConfig.from_pretrained(tmp_path / "student"))
    assert read == replace(architecture, experts_per_token=0) or case.variant in MIXED
    top = architecture.experts_per_token or experts_per_token(case.model.config)
    assert experts_per_token(loaded.config) == top
    assert loaded.num_parameters() == parameter_count(case.model.config, architecture, kept=kept)
    generated = loaded.generate(token_ids(1, 5), max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert generated.shape == (1, 9)
    said, whole = _one_by_one(loaded), logits(loaded)
    # transformers before 5.23 answers every token of a cached step thrice for a Falcon-H1 with norm
    if said.shape == whole.shape or _one_by_one(case.model).shape == case.logits.shape:
        assert difference(said, whole) <= EXACT
    for model in (loaded, in_memory):
        ids = token_ids(4, 31)
        model.train()(input_ids=ids, labels=ids).loss.backward()
        trained = [
            p for n, p in model.named_parameters() if not n.endswith("e_score_correction_bias")
        ]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        torch.optim.SGD(model.parameters(), lr=1e-3).step()


@torch.no_grad()
def _one_by_one(model: Any) -> torch.Tensor:
    """The logits of `logits` with a cache: most tokens at once, and the last ones singly."""
    ids = token_ids(3, 17)
    first = model(input_ids=ids[:, :13], use_cache=True)
    said, cache = [first.logits], first.past_key_values
    for place in range(13, 17):  # named, as `generate` does: Bamba counts from 0 otherwise
        at = torch.tensor([[place]])
        step = model(
            input_ids=ids[:, place, None], position_ids=at, past_key_values=cache, use_cache=True
        )
        said.append(step.logits)
    return torch.cat(said, dim=1)


def test_a_cut_student_owns_its_tensors(case: Case) -> None:
    before = (case.sorted.directory / "model.safetensors").read_bytes()
    student = cut_student(case.sorted, case.sizes, list(range(case.sizes.layers)))
    with torch.no_grad():
        for parameter in student.parameters():
            assert parameter.dtype == torch.float32
            parameter.zero_()
    assert (case.sorted.directory / "model.safetensors").read_bytes() == before
    tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert tied == case.model.config.tie_word_embeddings


def test_the_global_generator_is_left_alone(case: Case) -> None:
    before = torch.get_rng_state()
    cut_student(case.sorted, case.sizes, list(range(case.sizes.layers)))
    assert torch.equal(torch.get_rng_state(), before)

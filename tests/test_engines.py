"""The script that holds the rules of engines against the engines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from experiments.benchmarks.engines import per_layer
from experiments.benchmarks.engines.environments import ENVIRONMENTS
from experiments.benchmarks.engines.run import CACHE, Reading, judged, rules_table, table
from experiments.benchmarks.engines.teachers import (
    CONFIGS,
    VOCABULARY,
    students_of,
    write,
    write_teacher,
)
from pruning import Architecture, Checkpoint, is_legal
from pruning.engines import why_not_as_decilm
from pruning.engines.programs import CTRANSLATE2, ENGINES, LLAMA_CPP, MLX, TRANSFORMERS_4, TRIED
from pruning.engines.rules import RULES
from pruning.engines.spec import RUN
from pruning.engines.verdicts import rules_of
from tests.driver import ROOT

PROMPT = per_layer.prompt()
EXPECTED = np.ones((128, 8), dtype=np.float32)


def config_of(name: str) -> Any:
    kind, values = CONFIGS[name]
    return kind(**values)


def students(name: str) -> dict[str, Any]:
    return {student.cut: student for student in students_of(name, config_of(name))}


def test_every_model_type_and_every_rule_that_was_run_is_tried() -> None:
    assert {config_of(name).model_type for name in CONFIGS} == TRIED
    every = [(config_of(name), list(students(name).values())) for name in CONFIGS]
    for rule in RULES:
        if rule.known != RUN or ENGINES[rule.engine].known != RUN:
            continue
        holds = [
            bool(rule.holds(config, one.architecture) and rule.holds_for(config, one.kept))
            for config, found in every
            for one in found
            if rule in rules_of(config, (rule.engine,))
        ]
        assert True in holds and False in holds, f"{rule.engine}: {rule.needs}"


def test_the_rules_stand_in_the_documentation() -> None:
    text = (ROOT / "docs" / "engines.md").read_text()
    assert "\n".join(rules_table()) in text
    assert all(engine.version.split()[-1] in text for engine in ENGINES.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_students_can_be_cut_and_are_cut_along_every_axis(name: str) -> None:
    found = students(name)
    assert {"whole", "hidden", "depth"} <= found.keys()
    assert all(is_legal(config_of(name), student.architecture) for student in found.values())


@pytest.mark.parametrize(
    ("name", "cut", "engine", "logits", "said"),
    [
        ("llama", "whole", LLAMA_CPP, EXPECTED, ""),
        ("llama", "whole", LLAMA_CPP, EXPECTED + 0.01, "the rules allow it"),
        ("llama", "whole", LLAMA_CPP, None, "the rules allow it"),
        ("llama", "whole", LLAMA_CPP, EXPECTED * np.nan, "the rules allow it"),
        ("llama", "hidden", CTRANSLATE2, EXPECTED, "the rules refuse it"),
        ("llama", "hidden", CTRANSLATE2, EXPECTED + 1, ""),
        ("llama", "hidden", CTRANSLATE2, None, ""),
        ("olmo2", "whole", CTRANSLATE2, None, ""),
        ("olmo2", "whole", CTRANSLATE2, EXPECTED, "the rules refuse it"),
        ("gemma2", "whole", MLX, EXPECTED, "the rules say that it ignores the window"),
        ("llama", "FFN, no even rows", MLX, EXPECTED, "not quantised: nothing, against the rules"),
    ],
)
def test_what_an_engine_makes_of_a_student_is_held_against_the_rules(
    name: str, cut: str, engine: str, logits: Any, said: str, tmp_path: Path
) -> None:
    answer: dict[str, Any] = {"error": "no"}
    if logits is not None:
        np.save(tmp_path / "logits.npy", logits)
        answer = {"logits": str(tmp_path / "logits.npy"), "unquantised": []}
    found = judged(students(name)[cut], config_of(name), Reading(engine, answer, EXPECTED))
    assert found.contradiction == said
    assert engine in table([found], [engine])[0]


def test_a_window_that_is_ignored_is_right_inside_it(tmp_path: Path) -> None:
    beyond = EXPECTED.copy()
    beyond[64:] += 1
    np.save(tmp_path / "logits.npy", beyond)
    answer = {"logits": str(tmp_path / "logits.npy")}
    whole = students("gemma2")["whole"]
    found = judged(whole, config_of("gemma2"), Reading(MLX, answer, EXPECTED))
    assert (found.outcome, found.contradiction) == ("equal in the window", "")
    other = judged(students("llama")["whole"], config_of("llama"), Reading(MLX, answer, EXPECTED))
    assert other.contradiction == "the rules allow it"


@pytest.mark.parametrize("engine", per_layer.ENGINES)
def test_students_whose_layers_differ_are_tried_on_both_sides_of_the_table(engine: str) -> None:
    taken = set()
    for name, changed in per_layer.TEACHERS.items():
        kind, values = CONFIGS[name.removesuffix(", narrow")]
        config = kind(**(values | per_layer.SIZES | changed))
        for text in per_layer.SHAPES.values():
            shape = replace(Architecture.parse(text), hidden=config.hidden_size)
            assert is_legal(config, shape)
            taken.add(why_not_as_decilm(engine, config, shape) == "")
    assert taken == {True, False}


@pytest.mark.process
def test_a_student_whose_layers_differ_runs_as_gguf(tmp_path: Path) -> None:
    environment = ENVIRONMENTS[LLAMA_CPP]
    if not environment.ready(CACHE):
        pytest.skip(f"{CACHE / LLAMA_CPP} is not there; engines/per_layer.py makes it")
    student = per_layer.written("llama", "all", per_layer.SHAPES["all"], cache=tmp_path)
    (said,) = environment.read([student / "decilm"], PROMPT, CACHE, greedy=per_layer.GREEDY)
    line, equal = per_layer.compared(student / "student", PROMPT, said)
    assert equal, line


@pytest.mark.process
@pytest.mark.parametrize("engine", [TRANSFORMERS_4, CTRANSLATE2])
@torch.no_grad()
def test_a_student_computes_the_same_in_an_engine(engine: str, tmp_path: Path) -> None:
    environment = ENVIRONMENTS[engine]
    if not environment.ready(CACHE):
        pytest.skip(
            f"{CACHE / engine} is not there; experiments/benchmarks/engines/run.py makes it"
        )
    write_teacher("llama", tmp_path / "teacher")
    cuts = [students("llama")[cut] for cut in ("all widths", "depth", "heads")]
    folders = [tmp_path / str(number) for number in range(len(cuts))]
    for student, folder in zip(cuts, folders, strict=True):
        write(student, tmp_path / "teacher", folder)
    ids = torch.randint(4, VOCABULARY, (200,), generator=torch.Generator().manual_seed(1))
    answers = environment.read(folders, ids.tolist(), CACHE)
    for student, folder, answer in zip(cuts, folders, answers, strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        expected = model(input_ids=ids[None]).logits[0].numpy()
        config = Checkpoint(tmp_path / "teacher").config
        found = judged(student, config, Reading(engine, answer, expected))
        assert not found.contradiction, found
        assert found.outcome == "equal" or (engine, student.cut) == (CTRANSLATE2, "heads")

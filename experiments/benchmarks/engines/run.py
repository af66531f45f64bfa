"""Which engines take which cuts of which model types, and whether the table of rules says so.

    python experiments/benchmarks/engines/run.py [--cache runs/engines] [--only NAME ...]
        [--engines transformers4 llama.cpp ctranslate2 mlx]

Makes an environment per engine (llama.cpp is built from source: five to fifteen minutes, once),
tiny random teachers, cuts of them and their logits in transformers 5, and asks every engine for its
own at 200 positions. Prints a table, and then every student that contradicts the rules of
pruning/engines/rules.py: one that is refused or wrong where they allow it, or right where they
refuse it. Ends with a line of JSON, and with status 1 where there is a contradiction. vLLM and
SGLang need a GPU: what the rules say of them was read.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from experiments.benchmarks.engines.environments import ENVIRONMENTS, describe
from experiments.benchmarks.engines.teachers import (
    CONFIGS,
    VOCABULARY,
    WINDOW,
    Student,
    students_of,
    write,
    write_teacher,
)
from pruning import FAMILIES, Checkpoint
from pruning.engines import (
    COMPUTING,
    ENGINES,
    LLAMA_CPP,
    LOADING,
    MLX,
    QUANTISING,
    RULES,
    WINDOWS,
    rules_of,
)

CACHE = ROOT / "runs" / "engines"
LENGTH = 200
EQUAL = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as equal."""
EQUAL_GELU = 5e-3
"""The same for model types with GELU in engines that approximate it: llama.cpp reads it from a
table in F16, mlx-lm takes the hyperbolic tangent for it."""
GELU = ("gemma2", "gemma3_text", "gpt2", "gpt_neox")

ELSE = {
    LOADING: "refused, or wrong",
    COMPUTING: "wrong without a word, or refused",
    QUANTISING: "rows stay unquantised",
    WINDOWS: "wrong beyond the window",
}
"""What comes of a student that does not meet a rule, by what breaks."""


@dataclass(frozen=True)
class Reading:
    """What an engine said of a student, and what it should have said."""

    engine: str
    said: dict[str, Any]
    """As `Environment.read` gives it."""
    expected: Any
    """Logits [positions, vocabulary] of transformers."""
    left: frozenset[str] = frozenset()
    """Tensors that the quantised format leaves out, and not of the whole teacher."""


@dataclass(frozen=True)
class Answer:
    """What an engine made of a student, held against the table of rules."""

    student: Student
    engine: str
    outcome: str
    """refused, equal, equal in the window, or wrong."""
    difference: float
    """Relative to the largest logit; of all positions, or in the window. NaN where refused."""
    error: str
    contradiction: str
    """What of it the rules do not say; empty where they agree."""


def main() -> int:
    given = _arguments()
    for engine in given.engines:
        ENVIRONMENTS[engine].install(given.cache)
    logging.disable_progress_bar()
    names = [name for name in CONFIGS if name.startswith(tuple(given.only))]
    students = [one for name in names for one in _students(name, given.cuts, given.cache)]
    folders = [_folder(student, given.cache) for student in students]
    ids = torch.randint(
        4, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    expected = [_expected(folder, ids) for folder in folders]
    answers = []
    for engine in given.engines:
        print(f"{engine}: {len(folders)} checkpoints", flush=True)
        said = ENVIRONMENTS[engine].read(folders, ids, given.cache)
        whole = {
            s.teacher: _left(one) for s, one in zip(students, said, strict=True) if s.cut == "whole"
        }
        for student, one, logits in zip(students, said, expected, strict=True):
            config = Checkpoint(given.cache / "models" / _slug(student.teacher) / "teacher").config
            reading = Reading(engine, one, logits, _left(one) - whole[student.teacher])
            answers.append(judged(student, config, reading))
    for line in table(answers, given.engines):
        print(line)
    wrong = [answer for answer in answers if answer.contradiction]
    for answer in wrong:
        print(
            f"{answer.engine}: {answer.student.teacher}, {answer.student.cut}: "
            f"{answer.outcome} {answer.difference:.1e} {answer.error}: {answer.contradiction}"
        )
    for line in ["", *rules_table()]:
        print(line)
    print(describe())
    counts = {
        engine: {
            outcome: sum(a.outcome == outcome for a in answers if a.engine == engine)
            for outcome in sorted({a.outcome for a in answers})
        }
        for engine in given.engines
    }
    print(json.dumps({"students": len(students), "outcomes": counts, "contradictions": len(wrong)}))
    return int(bool(wrong))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments and models")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only teachers whose name begins with one of these"
    )
    parser.add_argument("--cuts", nargs="+", default=[], help="only these cuts; by default all")
    parser.add_argument(
        "--engines", nargs="+", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS)
    )
    return parser.parse_args()


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _folder(student: Student, cache: Path) -> Path:
    return cache / "models" / _slug(student.teacher) / _slug(student.cut)


def _students(name: str, cuts: list[str], cache: Path) -> list[Student]:
    """Written afresh, since what writes them may have changed."""
    folder = cache / "models" / _slug(name)
    shutil.rmtree(folder, ignore_errors=True)
    write_teacher(name, folder / "teacher")
    config = Checkpoint(folder / "teacher").config
    wanted = {"whole", *cuts}
    every = list(students_of(name, config))
    students = [student for student in every if not cuts or student.cut in wanted]
    for student in students:
        write(student, folder / "teacher", _folder(student, cache))
    return students


@torch.no_grad()
def _expected(folder: Path, ids: list[int]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def _left(answer: dict[str, Any]) -> frozenset[str]:
    """Kinds of tensors that the quantised format leaves out, whatever their layer."""
    names = answer.get("unquantised", [])
    return frozenset("".join(letter for letter in name if not letter.isdigit()) for name in names)


def judged(student: Student, config: Any, reading: Reading) -> Answer:
    """Hold what an engine read against what it should have, and that against the rules."""
    engine, said, logits = reading.engine, reading.said, reading.expected
    outcome, difference = "refused", float("nan")
    if "logits" in said:
        found = np.load(said["logits"])
        most = np.abs(logits).max()
        off = np.abs(found - logits[: len(found)]).max(1) / most
        equal = EQUAL_GELU if engine in (LLAMA_CPP, MLX) and config.model_type in GELU else EQUAL
        difference = float(np.nan_to_num(off, nan=np.inf).max())
        outcome = "equal" if difference <= equal else "wrong"
        if (outcome == "wrong" or len(found) < len(logits)) and off[:WINDOW].max() <= equal:
            outcome, difference = "equal in the window", float(off[:WINDOW].max())
    broken = _broken(student, config, engine)
    contradiction = _contradiction(broken, outcome, reading.left)
    return Answer(student, engine, outcome, difference, said.get("error", ""), contradiction)


def _broken(student: Student, config: Any, engine: str) -> set[str]:
    """What breaks by the rules."""
    if config.model_type not in ENGINES[engine].model_types:
        return {LOADING}
    return {
        rule.breaks
        for rule in rules_of(config, (engine,))
        if not (rule.holds(config, student.architecture) and rule.holds_for(config, student.kept))
    }


def _contradiction(broken: set[str], outcome: str, left: frozenset[str]) -> str:
    works = outcome == "equal" or (outcome == "equal in the window" and WINDOWS in broken)
    if broken & {LOADING, COMPUTING}:
        return "the rules refuse it" if outcome == "equal" else ""
    if not works:
        return "the rules allow it"
    if WINDOWS in broken and outcome == "equal":
        return "the rules say that it ignores the window"
    if (QUANTISING in broken) != bool(left):
        return f"not quantised: {', '.join(sorted(left)) or 'nothing'}, against the rules"
    return ""


def table(answers: list[Answer], engines: list[str]) -> list[str]:
    """A row per teacher: what came of its cuts, those with one outcome together."""
    lines = [f"| teacher | {' | '.join(engines)} |", f"|---|{'---|' * len(engines)}"]
    for teacher in dict.fromkeys(answer.student.teacher for answer in answers):
        cells = []
        for engine in engines:
            own = [a for a in answers if (a.student.teacher, a.engine) == (teacher, engine)]
            outcomes: dict[str, list[Answer]] = {}
            for answer in own:
                outcomes.setdefault(answer.outcome, []).append(answer)
            cells.append("; ".join(_cell(*item, len(own)) for item in outcomes.items()))
        lines.append(f"| {teacher} | {' | '.join(cells)} |")
    return lines


def rules_table() -> list[str]:
    """The rules, as docs/engines.md has them."""
    lines = [
        "| engine | model types | needs | else | why | where | known |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        types = "all" if set(rule.model_types) == set(FAMILIES) else ", ".join(rule.model_types)
        parts = (rule.engine, types, rule.needs, ELSE[rule.breaks], rule.reason)
        lines.append(f"| {' | '.join(parts)} | `{rule.source}` | {rule.known} |")
    return lines


def _cell(outcome: str, answers: list[Answer], count: int) -> str:
    which = "all" if len(answers) == count else ", ".join(a.student.cut for a in answers)
    off = [answer.difference for answer in answers]
    shown = "" if outcome == "refused" else f" {max(off):.0e}"
    if outcome == "wrong" and len(off) > 1:
        shown = f" {min(off):.0e} to {max(off):.0e}"
    return f"{outcome}{shown}: {which}"


if __name__ == "__main__":
    sys.exit(main())

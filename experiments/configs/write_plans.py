"""Write docs/plans.md: the plan of every configuration beside this file.

python experiments/configs/write_plans.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.command import parse
from search.config import SearchConfig
from search.plan import StudyPlan

PAGE = ROOT / "docs" / "plans.md"
CONFIGS = Path(__file__).resolve().parent
TEACHERS = {
    "llama-3.1-8b-to-4b-width": "llama-3.1-8b",
    "llama-3.1-8b-to-4b-depth": "llama-3.1-8b",
    "mistral-nemo-12b-to-8b": "mistral-nemo-12b",
    "qwen3-8b-to-6b": "qwen3-8b",
    "nemotron-4-15b-family": "nemotron-4-15b",
    "smollm2-1.7b-on-24-gb": "smollm2-1.7b",
    "smollm2-135m-on-cpu": "smollm2-135m",
}
"""Configuration -> folder with the config.json of its teacher, in the order of the page."""
BEFORE = """# Plans

<!-- written by python experiments/configs/write_plans.py -->

`--plan` prints what a search, a cut or a distillation would run and take, and does nothing: no
Ray, no workspace, no download. [What it counts](search.md#plans) stands with the search. These are
the plans of the configurations in `experiments/configs`, from the `config.json` of their teachers
alone (`experiments/configs/teachers`); machine and TFLOP/s are what `plan_for` says in each file,
and are to be changed to yours:

    espalier search --config experiments/configs/qwen3-8b-to-6b.yaml \\
        --teacher experiments/configs/teachers/qwen3-8b --plan --plan_for.memory_gb 180

None of these studies was run. What tensors take on a GPU, and the 320 TFLOP/s of an H100 or
H200, follow from one model of 1.2B parameters that was [measured](gpu.md); other GPUs are
assumed to reach the same share of what they compute at most.
"""


def sections() -> Iterator[str]:
    """The text of the page, by configuration."""
    for name, teacher in TEACHERS.items():
        yield section(name, teacher)


def section(name: str, teacher: str) -> str:
    """What the page says of one configuration."""
    file = CONFIGS / f"{name}.yaml"
    about = [line[2:] for line in file.read_text("utf-8").splitlines() if line.startswith("# ")]
    given = [f"--config={file}", f"--teacher={CONFIGS / 'teachers' / teacher}"]
    plan = StudyPlan.of(parse(SearchConfig, given)).plan()
    problem = [] if plan.problem is None else ["", f"error: {plan.problem}"]
    lines = [f"    {line}".rstrip() for line in [*plan.lines(), *problem]]
    return "\n".join([f"## {name}", "", *about, "", *lines, ""])


def page() -> str:
    """The whole page."""
    return "\n".join([BEFORE, *sections()])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

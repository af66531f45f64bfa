"""What the commands share: several values after an option."""

import pytest

from experiments.command import list_options, with_lists
from search.config import SearchConfig


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ("--family 0.75 0.5", ["--family", "[0.75, 0.5]"]),
        ("--objectives kl", ["--objectives", '["kl"]']),
        ("--objectives kl task:a.b --trials 3", ["--objectives", '["kl", "task:a.b"]']),
        ("--objectives [kl,flops]", ["--objectives", "[kl,flops]"]),
        ("--space.heads 8", ["--space.heads", "[8]"]),
        ("--space.heads 4,8", ["--space.heads", "[4, 8]"]),
        ("--budget.parameters 0.5", ["--budget.parameters", "0.5"]),
        ("--budget.memory 2GB 4GB", ["--budget.memory", '["2GB", "4GB"]']),
        ("--corpus_files.include *.py *.c", ["--corpus_files.include", '["*.py", "*.c"]']),
        ("--study my study", ["--study", "my", "study"]),
        ("--family=[0.5,0.2] --seed 1", ["--family=[0.5,0.2]", "--seed", "1"]),
    ],
)
def test_values_after_an_option_that_takes_a_list(given: str, joined: list[str]) -> None:
    found = list(with_lists(given.split(), list_options(SearchConfig)))
    assert found[: len(joined)] == joined
    assert "--" not in found

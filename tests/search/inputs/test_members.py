"""Members of a study: what is said of a budget that nobody gave."""

from search.config import BudgetConfig, SearchConfig
from search.inputs.members import budget_note


def test_a_budget_that_nobody_gave_is_said() -> None:
    (note,) = budget_note(SearchConfig(teacher="t", corpus="c"))
    assert "at most 50% of the teacher's parameters (--budget.parameters 0.5)" in note


def test_a_budget_that_was_given_needs_no_note() -> None:
    budget = BudgetConfig(memory="8GB")
    assert budget_note(SearchConfig(teacher="t", corpus="c", budget=budget)) == []
    assert budget_note(SearchConfig(teacher="t", corpus="c", family=[0.75, 0.5])) == []

"""Results of a finished search in its database, where other machines find them."""

import json
from collections.abc import Mapping, Sequence

from pruning import Architecture
from search.database.attributes import RESULTS
from search.page.study_facts import StudyFacts
from search.results.results import Results
from search.results.results_file import parsed_results, to_json


def record_results(
    facts: StudyFacts, results: Results, *, kept: Mapping[Architecture, Sequence[int]]
) -> None:
    """Keep results and the layers that students kept, in the study."""
    layers = [[shape.to_dict(), list(numbers)] for shape, numbers in kept.items()]
    recorded = {"results": json.loads(to_json(results)), "kept_layers": layers}
    facts.study.set_user_attr(_name(facts), recorded)


def recorded_results(
    facts: StudyFacts,
) -> tuple[Results | None, dict[Architecture, Sequence[int]]]:
    """Both; (None, {}) where there are none.

    Raises:
        SearchError: Where a newer version of Espalier wrote them.
    """
    recorded = facts.attributes.get(_name(facts))
    if recorded is None:
        return None, {}
    results = parsed_results(recorded["results"], f"the study {facts.name}")
    kept = {Architecture.from_dict(shape): numbers for shape, numbers in recorded["kept_layers"]}
    return results, kept


def _name(facts: StudyFacts) -> str:
    return RESULTS if facts.member is None else f"{RESULTS}:{facts.member}"

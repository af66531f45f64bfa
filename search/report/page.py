"""The page of a search that ends, and what its database keeps of the results for later ones."""

from search.database.storage import database_url
from search.page import Place, StudyFacts, record_results, study_page
from search.report.finished_search import FinishedSearch
from search.results.results import Results
from workspace.layout import Workspace


def write_page(search: FinishedSearch, results: Results, outputs: Workspace) -> None:
    """Write report.html with its figures and tables, and record the results in the study."""
    facts = StudyFacts(search.record.study, search.member.name)
    root = search.plan.assets.sorted_teacher.parent
    page = study_page(facts, Place(database_url(facts.study), outputs, root), results)
    page.write(outputs)
    record_results(facts, results, kept=page.kept)

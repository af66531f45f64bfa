"""The report of a study: one self-contained page, made from its database and its results."""

from search.page.family_page import FamilyPage
from search.page.page import StudyPage
from search.page.recorded import record_results
from search.page.study_facts import StudyFacts, members_of
from search.page.workspace_facts import Place, study_page

__all__ = [
    "FamilyPage",
    "Place",
    "StudyFacts",
    "StudyPage",
    "members_of",
    "record_results",
    "study_page",
]

"""The report of a study: one self-contained page, made from its database and its results."""

from search.page.page import StudyPage
from search.page.study_facts import StudyFacts, members_of
from search.page.workspace_facts import kept_layers, study_files

__all__ = ["StudyFacts", "StudyPage", "kept_layers", "members_of", "study_files"]

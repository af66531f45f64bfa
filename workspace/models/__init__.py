"""Models as the user names them: located, checked, loaded, and written for others to use."""

from workspace.models.cut_facts import CUT_FACTS, facts_of_cut, write_cut_facts
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import CARD, ModelSource
from workspace.models.notes import notes_of, precision_note
from workspace.models.student_copy import check_copy, copy_folder, place_copy, write_copies
from workspace.models.student_folder import finish_folder, place_student
from workspace.models.student_source import block_map, own_tokenizer, student_named

__all__ = [
    "CARD",
    "CUT_FACTS",
    "LoadedModel",
    "ModelSource",
    "block_map",
    "check_copy",
    "copy_folder",
    "facts_of_cut",
    "finish_folder",
    "notes_of",
    "own_tokenizer",
    "place_copy",
    "place_student",
    "precision_note",
    "student_named",
    "write_copies",
    "write_cut_facts",
]

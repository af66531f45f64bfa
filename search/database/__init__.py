"""The database of a study: storage, attributes, drivers, and Optuna's private parts."""

from search.database.coordination import Coordination
from search.database.lease import leased, locked
from search.database.optuna_internals import storage_of
from search.database.storage import database_url, open_storage
from search.database.storage_url import VARIABLE as STORAGE_VARIABLE
from search.database.storage_url import shown, take_storage_url
from search.database.trial_cache import TrialLog

__all__ = [
    "STORAGE_VARIABLE",
    "TrialLog",
    "Coordination",
    "database_url",
    "leased",
    "locked",
    "open_storage",
    "shown",
    "storage_of",
    "take_storage_url",
]

"""All verdicts on a finished search, in the order in which they are read."""

from collections.abc import Iterable

from search.report.verdicts.found import Found
from search.report.verdicts.headline import headline
from search.report.verdicts.rivals import rival_verdicts
from search.results.statements import BAD, Statement


def verdicts(found: Found, others: Iterable[Statement] = ()) -> list[Statement]:
    """The headline, what speaks against the winner, and the rest.

    Terminal, report and cards say these sentences and no others.

    Args:
        found: What was measured.
        others: On parts of the search that have statements of their own.
    """
    rest = [*rival_verdicts(found), *others]
    return [headline(found), *sorted(rest, key=lambda statement: statement.tone != BAD)]

"""KL of students before training: how good they were as they were cut."""

from math import isfinite

from search.report.finished_search import FinishedSearch
from search.trials.zero_shot import untrained_kl


def kl_before_training(search: FinishedSearch) -> dict[int, float]:
    """Selection KL of winners and baselines as they were cut, by the id of each; on as many
    sequences as --funnel.sequences scores candidates on. Without those from random weights, and
    those whose cut overflows."""
    sequences = search.inputs.config.funnel.sequences
    scored = {} if search.zero_shot is None else search.zero_shot.scores
    found = {}
    for student in search.students.distinct:
        run, shape = student.runs[0].run, student.architecture
        if run.from_scratch:
            continue
        known = None if run.source else scored.get(shape)  # the funnel cuts the teacher alone
        if known is None:
            known = untrained_kl(shape, search.plan.assets_of(run), sequences=sequences)
        found[id(student)] = known
    return {key: kl for key, kl in found.items() if isfinite(kl)}

"""Tokens that the teacher reads and trains on while a study is prepared, stage by stage."""

from dataclasses import replace

from distill import Corpus
from search.database.attributes import LIBRARY_SECONDS, PREPARATION_SECONDS
from search.inputs.preparing import block_passes, target_tokens
from search.needs.passes import importance_tokens
from search.report.finished_search import FinishedSearch
from search.results.ledger import Cost, RunCosts
from workspace.corrected_teacher import correction_facts


def preparation_cost(search: FinishedSearch, costs: RunCosts) -> Cost:
    """Cost of one student's share: a family is prepared once for all its members."""
    corpus = Corpus(search.plan.assets.corpus)
    whole = costs.of_teacher(
        read=_target_tokens(search, corpus) + _importance_tokens(search, corpus),
        trained=_correction_tokens(search),
        seconds=search.record.study.user_attrs.get(PREPARATION_SECONDS, 0.0),
    )
    return whole / len(search.inputs.members)


def untrained_tokens(search: FinishedSearch) -> int:
    """Tokens that a student is scored on before any training."""
    corpus = Corpus(search.plan.assets.corpus)
    sequences = min(search.inputs.config.funnel.sequences, len(corpus.blocks("selection")))
    return int(sequences * corpus.block)


def _target_tokens(search: FinishedSearch, corpus: Corpus) -> int:
    """Read for the targets of both held-out splits, and of training where they are stored."""
    facts = corpus.facts
    return target_tokens(
        search.inputs.config,
        stored=search.plan.assets.training_targets is not None,
        held_out=facts["selection_tokens"] + facts["test_tokens"],
        available=facts["train_tokens"],
    )


def _importance_tokens(search: FinishedSearch, corpus: Corpus) -> int:
    """Read to score what students keep."""
    config, block = search.inputs.config, corpus.block
    sequences = min(config.calibration_sequences, corpus.facts["train_tokens"] // block)
    layers = search.inputs.space.teacher.layers
    return importance_tokens(config.importance.settings, sequences, layers=layers, block=block)


def _correction_tokens(search: FinishedSearch) -> int:
    """Trained on where the teacher was corrected."""
    facts = correction_facts(search.plan.assets.teacher)
    return 0 if facts is None else int(facts["tokens"])


def blocks_cost(search: FinishedSearch, costs: RunCosts) -> Cost | None:
    """Cost of training and scoring the blocks of students whose layers differ; None where there are
    none.

    Counted as if all blocks were as large as the teacher's: an upper bound.
    """
    library, plan = search.library, search.inputs.per_layer
    if library is None or plan is None:
        return None
    corpus, settings = Corpus(search.plan.assets.corpus), search.inputs.config.per_layer
    layers = len(plan.variants)
    runs: dict[str, dict[int, int]] = {}
    for error in library.errors:  # one run trains all sizes of a schedule
        runs.setdefault(error.schedule, {})[error.layer] = error.tokens
    trained = sum(sum(tokens.values()) for tokens in runs.values()) / layers
    read = sum(max(tokens.values()) for tokens in runs.values())
    sequences: int = min(settings.sequences, len(corpus.blocks("selection")))
    scored = len(search.rounds) * block_passes(plan.variants) * sequences * corpus.block
    seconds = search.record.study.user_attrs.get(LIBRARY_SECONDS, 0.0)
    taught = costs.of_teacher(read=read)
    student = costs.student(
        search.inputs.space.teacher, trained=trained, evaluated=scored, seconds=seconds
    )
    return Cost.sum([replace(taught, tokens=0.0), student])

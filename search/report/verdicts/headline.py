"""The headline: which student, what it keeps of its teacher, and whether anything is as good."""

from distill.evaluation import perplexity
from search.report.verdicts.found import BASELINES, Found, between, listed, noun
from search.results.statements import BAD, GOOD, NOTE, Statement, Tone


def headline(found: Found) -> Statement:
    """The first thing that is said."""
    tone, standing = _standing(found)
    return Statement(tone, f"{_student(found)} {_chosen(found)} {standing}")


def _student(found: Found) -> str:
    """What it is, and what it keeps."""
    winner, teacher = found.winner, found.teacher
    share = winner.parameters / teacher.parameters
    agreement = winner.interval("top1_agreement").mean
    own, taught = (perplexity(ce.mean) for ce in (winner.interval("ce"), teacher.test.ce))
    return (
        f"{winner.architecture}, {winner.parameters:,} parameters ({share:.1%} of the teacher's "
        f"{teacher.parameters:,}), agrees with the teacher on the likeliest next token of "
        f"{agreement:.1%} of the test text, at a perplexity of {own:,.2f} against the teacher's "
        f"{taught:,.2f}."
    )


def _chosen(found: Found) -> str:
    """On which split it was chosen, and how it stands on the other."""
    winner, front = found.winner, found.comparison.selection.along_a_front
    traded = f"as the knee of the front of {', '.join(found.objectives)} " if front else ""
    kl = between(winner.interval("kl"))
    chosen = winner.runs[0].selection.means()["kl"]
    return (
        f"It was chosen {traded}on the selection split (KL to the teacher {chosen:.4f} nats per "
        f"token); on the test split, read once afterwards, the KL is {kl}."
    )


def _standing(found: Found) -> tuple[Tone, str]:
    """Whether anything else is as good or better."""
    comparison, better, tied = found.comparison, found.better, found.tied
    short = {name: gap for name, gap in comparison.short.items() if name in BASELINES}
    ahead = [name for name, gap in short.items() if gap.low > 0]
    if better:
        return BAD, f"Better than it on the test split: {listed(better)}."
    if ahead:
        verb = "is" if len(ahead) == 1 else "are"
        return BAD, f"After short runs {listed(ahead)} {verb} better than its architecture."
    level = [name for name, gap in short.items() if gap.low <= 0 <= gap.high]
    as_good = [*map(noun, tied), *(f"{noun(name)} (after short runs)" for name in level)]
    if as_good:
        return NOTE, f"As good, as far as can be told: {', '.join(as_good)}."
    compared = [*found.rivals, *(name for name in short if name not in found.rivals)]
    if not compared:
        return NOTE, "It was held against nothing."
    if any(comparison.full[name].low > 0 or found.cheaper(name) for name in found.rivals):
        return NOTE, "Nothing that it was held against is better after as many tokens at its cost."
    tone: Tone = GOOD if comparison.winner_is is None else NOTE
    after = f" ({listed(list(short))} after short runs)" if short else ""
    return tone, f"All that it was held against is worse: {listed(compared)}{after}."

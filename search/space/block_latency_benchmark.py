"""Latency benchmark of sub-blocks: by the difference between students with many and twice as many.

A student of one whole layer and N layers with one sub-block only is timed beside one with 2N; the
difference, of the two turns that follow each other, is N times such a layer. What a layer without
sub-blocks takes is measured in the same way and taken off. All that is outside the layers is what
whole students, timed beside them, take more than the sum of their layers.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median

import numpy as np
from transformers import PretrainedConfig

from common.errors import SearchStopped, require
from common.progress import Progress, Throttle, duration
from pruning import ATTENTION, FFN, Architecture, Block, architecture_of, block_of
from pruning.families import text_of_blocks
from search.space.block_latency import (
    BlockLatencyTable,
    MeasuredStudent,
    Times,
    sub_block,
    windowed_layers,
)
from search.space.latency import TIMES, LatencySetting
from search.space.timing import Timed, prompts, students, timing, turn
from search.space.variants import NOTHING

LOGGER = logging.getLogger(__name__)
FEWEST_REPEATS, MOST_REPEATS = 2, 8
"""Layers of the shorter student of a pair: half of the teacher's, within these bounds. The longer
one has twice as many, so that caches of the processor hold as much as for a whole student."""
WHOLE_STUDENTS = 8
"""Random students that are timed as a whole, to see how well the sums add up."""
SECONDS = 120.0
"""The first rounds go on for about so long."""
FEWEST_ROUNDS, MOST_ROUNDS = 5, 15
NOISE, NOISE_OF_LARGEST = 0.05, 0.02
"""A standard error above both, as shares of the sub-block's time and of the largest of its kind, is
measured again."""
AGAIN = 3
"""How often noisy sub-blocks have as many rounds more."""
LINE_SECONDS = 10.0
Turn = Callable[[int], Times]
"""Number of a timed student -> seconds of one turn of it, by name of the time."""


@dataclass(frozen=True)
class Pair:
    """One sub-block, or none, and the two students that it is timed by."""

    block: Block
    """As `sub_block` writes it."""
    repeats: int
    """Layers with it that the longer student has more."""
    places: tuple[int, int]
    """Numbers of the shorter and the longer student."""


def measure_blocks(
    config: PretrainedConfig,
    variants: Sequence[Collection[Block]],
    *,
    setting: LatencySetting,
    times: Sequence[str] = TIMES,
    seconds: float = SECONDS,
) -> BlockLatencyTable:
    """Time every sub-block of the `variants` of each of the teacher's layers.

    All students take turns, so that a drift of the machine favours none; a time is the median over
    the turns of a pair's differences. One that is negative, or noisy, is measured again. Random
    students of the variants are timed as a whole beside them.

    Raises:
        SearchError: The device has too little memory.
        SearchStopped: A time stays negative.
    """
    bench = _Bench.of(config, variants, setting=setting)
    with timing(setting):
        models = students(config, bench.wanted, setting=setting)
        tokens = prompts(config, setting)
        turns = Turns(lambda place: turn(models[place], tokens, times), len(models), times=times)
        turns.add(range(len(models)), seconds=seconds, what="sub-blocks")
        for _ in range(AGAIN):
            noisy = bench.noisy(turns)
            if not noisy:
                break
            places = {place for pair in noisy for place in pair.places} | bench.whole_places
            LOGGER.info(
                f"latency: {len(noisy)} of {len(bench.pairs)} sub-blocks are measured again, since "
                "they are noisy"
            )
            turns.add(sorted(places), seconds=seconds / AGAIN, what="noisy sub-blocks")
    return bench.table(turns, setting)


class Turns:
    """Seconds of each turn of each timed student."""

    def __init__(self, timed: Turn, count: int, *, times: Sequence[str]):
        """`count` students, whose turns `timed` times."""
        self.timed, self.times = timed, tuple(times)
        self.seconds: dict[str, list[list[float]]] = {
            name: [[] for _ in range(count)] for name in times
        }
        for place in range(count):
            timed(place)  # kernels are chosen, memory is taken

    def add(self, places: Sequence[int], *, seconds: float, what: str) -> None:
        """Rounds of turns of these students, for about so many seconds."""
        line_due, done, rounds = Throttle(LINE_SECONDS), 0, FEWEST_ROUNDS
        progress = Progress(rounds)
        while done < rounds:
            for place in places:
                for name, taken in self.timed(place).items():
                    self.seconds[name][place].append(taken)
            done += 1
            left = (seconds - progress.seconds) * done / max(progress.seconds, 1e-9)
            rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, done + int(left)))
            progress.total = rounds
            if done < rounds and line_due():
                LOGGER.info(
                    f"latency: round {done} of {rounds} over {len(places)} students for {what}, "
                    f"about {duration(progress.left(done))} left of them"
                )

    def of(self, place: int, name: str) -> float:
        """Milliseconds of a student, the median over its turns."""
        return 1000 * median(self.seconds[name][place])

    def marginal(self, pair: Pair, name: str) -> tuple[float, float]:
        """Milliseconds of one layer of a pair, and the standard error of that median."""
        short, long = (np.array(self.seconds[name][place]) for place in pair.places)
        each = 1000 * (long - short) / pair.repeats
        middle = float(np.median(each))
        deviation = 1.4826 * float(np.median(abs(each - middle)))  # of a normal distribution
        return middle, 1.2533 * deviation / len(each) ** 0.5


@dataclass(frozen=True)
class _Bench:
    """The students that are timed, and what their times say."""

    config: PretrainedConfig
    windows: tuple[bool, ...]
    pairs: tuple[Pair, ...]
    """The empty layer's first."""
    whole: tuple[Architecture, ...]
    wanted: tuple[Timed, ...]
    """The students of the pairs, and then the whole ones."""

    @classmethod
    def of(
        cls,
        config: PretrainedConfig,
        variants: Sequence[Collection[Block]],
        *,
        setting: LatencySetting,
    ) -> "_Bench":
        hidden, depth = architecture_of(config).hidden, config.num_hidden_layers
        require(
            len(variants) == depth,
            f"variants are given for {len(variants)} layers; the teacher has {depth}",
        )
        windows = windowed_layers(config, setting.context)
        anchor = block_of(config, 0)
        repeats = min(MOST_REPEATS, max(FEWEST_REPEATS, depth // 2))
        pairs: list[Pair] = []
        wanted: list[Timed] = []
        for block, layer in _sources(variants, windows).items():
            pairs.append(Pair(block, repeats, (len(wanted), len(wanted) + 1)))
            taken = replace(block, window=int(block.window and not windows[layer]))
            for count in (repeats, 2 * repeats):
                shape = Architecture.of_blocks(hidden, [anchor, *[taken] * count])
                wanted.append(Timed(shape, (0, *[layer] * count)))
        whole = _random_students(hidden, variants)
        wanted += [Timed(shape, tuple(range(depth))) for shape in whole]
        return cls(config, windows, tuple(pairs), whole, tuple(wanted))

    @property
    def whole_places(self) -> set[int]:
        """Numbers of the whole students, which have a turn in every round: the sums are held
        against them."""
        return set(range(len(self.wanted) - len(self.whole), len(self.wanted)))

    def noisy(self, turns: Turns) -> list[Pair]:
        """Pairs to measure again; the empty layer's with them, since it is taken off all."""
        sub_blocks, noise = self._sub_blocks(turns)
        again = [pair for pair in self.pairs[1:] if self._is_noisy(pair.block, sub_blocks, noise)]
        return [self.pairs[0], *again] if again else []

    def _is_noisy(
        self, block: Block, sub_blocks: Mapping[Block, Times], noise: Mapping[Block, Times]
    ) -> bool:
        alike = [other for other in sub_blocks if other.has_attention == block.has_attention]
        for name, ms in sub_blocks[block].items():
            largest = max(sub_blocks[other][name] for other in alike)
            allowed = max(NOISE * ms, NOISE_OF_LARGEST * largest)
            if ms <= 0 or noise[block][name] > allowed:
                return True
        return False

    def table(self, turns: Turns, setting: LatencySetting) -> BlockLatencyTable:
        """Raises SearchStopped for a time below 0."""
        sub_blocks, noise = self._sub_blocks(turns)
        for block, times in sub_blocks.items():
            for name, ms in times.items():
                if ms <= 0:
                    raise SearchStopped(
                        f"{name} of {text_of_blocks([block])} was measured as {ms:.3g} ms in "
                        f"{len(turns.seconds[name][0])} rounds; the machine does too much else: "
                        "measure again when it is idle"
                    )
        layer = {name: turns.marginal(self.pairs[0], name)[0] for name in turns.times}
        measured = tuple(
            MeasuredStudent(shape, {name: turns.of(place, name) for name in turns.times})
            for place, shape in zip(sorted(self.whole_places), self.whole, strict=True)
        )
        return BlockLatencyTable.fitted(
            setting=setting,
            windows=self.windows,
            layer=layer,
            sub_blocks=sub_blocks,
            noise=noise,
            students=measured,
        )

    def _sub_blocks(self, turns: Turns) -> tuple[dict[Block, Times], dict[Block, Times]]:
        """Milliseconds that each sub-block adds to an empty layer, and standard errors."""
        times: dict[Block, Times] = {}
        noise: dict[Block, Times] = {}
        empty = {name: turns.marginal(self.pairs[0], name) for name in turns.times}
        for pair in self.pairs[1:]:
            found = {name: turns.marginal(pair, name) for name in turns.times}
            times[pair.block] = {name: found[name][0] - empty[name][0] for name in turns.times}
            noise[pair.block] = {
                name: float(np.hypot(found[name][1], empty[name][1])) for name in turns.times
            }
        return times, noise


def _sources(variants: Iterable[Collection[Block]], windows: Sequence[bool]) -> dict[Block, int]:
    """Sub-blocks, the empty layer first -> the first layer of the teacher that has it."""
    sources: dict[Block, int] = {NOTHING: 0}
    for layer, blocks in enumerate(variants):
        for block in blocks:
            taken = replace(block, window=int(block.window and windows[-1]))
            for kind in (ATTENTION, FFN):
                sources.setdefault(sub_block(taken, kind, windowed=windows[layer]), layer)
    return sources


def _random_students(
    hidden: int, variants: Sequence[Collection[Block]]
) -> tuple[Architecture, ...]:
    """Students with a random variant in each layer, none twice and none that is nothing but
    attention or FFN."""
    random, ordered = Random(0), [sorted(set(blocks)) for blocks in variants]
    found: dict[Architecture, None] = {}
    for _ in range(20 * WHOLE_STUDENTS):
        blocks = [random.choice(choices) for choices in ordered]
        if any(block.has_attention for block in blocks) and any(b.has_ffn for b in blocks):
            found[Architecture.of_blocks(hidden, blocks)] = None
        if len(found) == WHOLE_STUDENTS:
            break
    return tuple(found)

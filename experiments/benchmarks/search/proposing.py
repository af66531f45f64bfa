"""Milliseconds of single proposals in a large space, by the trials that are finished."""

import time

import numpy as np
from transformers import LlamaConfig

from pruning import Architecture
from search.config import BudgetConfig, SamplerSettings, SpaceConfig
from search.samplers import Proposer
from search.space import Budget, CostModel, Space
from search.study import FINISHED, RUNNING, Observation

OBSERVED = (50, 100, 200, 400)
PENDING = 16


def large_space() -> Space:
    """Architectures of half the size of a Llama of 1.2 billion parameters."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    given = BudgetConfig(parameters=0.5, tolerance=0.05)
    costs = CostModel.of(config, given, block=1024)
    return Space.build(config, SpaceConfig(), budget=Budget.of(given, costs), costs=costs)


def synthetic_kl(space: Space, shape: Architecture) -> float:
    """A smooth function of the place on the axes, and a little noise that is the shape's own."""
    place = np.array(space.position(shape))
    noise = np.random.default_rng(abs(hash(shape)) % 2**32).normal(0, 0.01)
    return float(0.3 + ((place - 0.6) ** 2).sum() + noise)


def time_proposals(space: Space, name: str) -> dict[int, tuple[float, float]]:
    """Milliseconds of one proposal and of its CPU time, by the trials that are finished; others
    still run."""
    generator = np.random.default_rng(0)
    found = {}
    for count in OBSERVED:
        drawn = generator.choice(len(space.feasible), count + PENDING, replace=False)
        shapes = [space.feasible[n] for n in drawn]
        seen = [
            Observation(s, ((5_000, kl := synthetic_kl(space, s)),), (kl,), FINISHED)
            for s in shapes[:count]
        ]
        seen += [Observation(shape, (), None, RUNNING) for shape in shapes[count:]]
        Proposer(space, SamplerSettings(name), 0)(seen)
        began, cpu = time.perf_counter(), time.process_time()
        Proposer(space, SamplerSettings(name), 1)(seen)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        found[count] = 1e3 * wall, 1e3 * cpu
    return found

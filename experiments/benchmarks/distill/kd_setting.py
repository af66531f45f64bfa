"""The pairs of teacher and student that `kd_step.py` measures, and what their steps compute.

All weights are random. No time depends on them, but for sampled targets: a random teacher is
undecided, so that hardly a draw repeats another and as many entries are stored as are drawn.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from experiments.benchmarks.demo_setting import TEACHER
from pruning import Architecture, architecture_of, families, student_config

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "GH200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
"""Dense bf16 products with fp32 sums, by what a device's name holds, from the makers' sheets."""


@dataclass(frozen=True)
class Preset:
    """Shapes and amounts of one table."""

    name: str
    vocabulary: int
    teacher: Architecture | None
    """None: the demo teacher's shape."""
    student: Architecture | None
    """None: half of the teacher's parameters."""
    head_dim: tuple[int, int]
    """Of teacher and student."""
    batch: int
    sequence: int
    steps: int
    """Optimiser steps per timing."""
    rounds: int
    whole: bool = False
    """Whether targets of the whole distribution are among the kinds."""
    goal_over_ce: float | None = None
    """Least tokens/s from stored targets over those of plain cross-entropy."""
    goal_mfu: float | None = None
    """Least share of the device's rate, of the compiled student from stored targets."""
    micro_batch: int | None = None
    """Sequences per forward pass; None: a batch."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """Whether torch compiles the student's layers and the loss."""


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("4k", 4_096, None, None, (32, 32), 4, 256, 2, 13, True, 0.95),
        Preset(
            "128k",
            131_072,
            Architecture(4, 512, 8, 2, 1408),
            Architecture(4, 256, 4, 2, 704),
            (64, 64),
            batch=2,
            sequence=256,
            steps=1,
            rounds=7,
            goal_over_ce=0.85,
        ),
        Preset(
            "1b",
            128_256,
            Architecture(28, 3072, 24, 8, 8192),
            Architecture(16, 2048, 32, 8, 8192),
            (128, 64),
            batch=8,
            sequence=4096,
            steps=1,
            rounds=7,
            goal_mfu=0.45,
            micro_batch=4,
        ),
        Preset(
            "tiny",
            512,
            Architecture(2, 64, 4, 2, 128),
            None,
            (16, 16),
            batch=2,
            sequence=32,
            steps=2,
            rounds=3,
            whole=True,
        ),
    )
}


def teacher_config(preset: Preset) -> PretrainedConfig:
    """Of a Llama with tied embeddings, as small models of large vocabularies have them."""
    if preset.teacher is None:
        config: PretrainedConfig = AutoConfig.from_pretrained(TEACHER)
        config.vocab_size = preset.vocabulary
        return config
    return _llama(preset, preset.teacher, preset.head_dim[0])


def _llama(preset: Preset, shape: Architecture, head_dim: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=preset.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        head_dim=head_dim,
        max_position_embeddings=preset.sequence,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def make_teacher(preset: Preset, device: str) -> Any:
    """In bf16 on a GPU, where it is only read."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with torch.device(device):
        teacher = AutoModelForCausalLM.from_config(teacher_config(preset), dtype=dtype)
    return teacher.eval()


def make_student(preset: Preset, device: str) -> Any:
    """Its weights are fp32."""
    config = half_of(teacher_config(preset))
    if preset.student is not None:
        config = _llama(preset, preset.student, preset.head_dim[1])
    torch.manual_seed(1)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def half_of(teacher: PretrainedConfig) -> PretrainedConfig:
    """A student of about half the teacher's parameters: half the heads, the rest off the FFN."""
    sizes = architecture_of(teacher)
    heads = max(1, sizes.heads // sizes.kv_heads // 2) * sizes.kv_heads

    def config(ffn: int) -> PretrainedConfig:
        shape = Architecture(sizes.layers, sizes.hidden, heads, sizes.kv_heads, ffn)
        return student_config(teacher, shape, list(range(sizes.layers)))

    surplus = _parameters(config(sizes.ffn)) - _parameters(teacher) / 2
    ffn = sizes.ffn - round(surplus / (3 * sizes.hidden * sizes.layers))
    return config(max(8, ffn // 8 * 8))


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())


def twin(model: Any) -> Any:
    """Another module of the very same parameters, whose methods may be replaced."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)


def training_flops(model: Any, sequence: int) -> float:
    """Operations per token to train `model` on sequences of so many tokens, as they are planned."""
    config = model.config.get_text_config()
    return families.training_flops(config, architecture_of(config), sequence)


def peak_tflops(device: str) -> float | None:
    """What the device computes at most, where it is known."""
    if not device.startswith("cuda"):
        return None
    name = torch.cuda.get_device_name(torch.device(device))
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)

"""Outline of a study that is planned, and the machine that it is planned for."""

import math

from common.errors import require
from common.machine import Machine
from pruning.exports import check_type
from search.cluster.cluster import shared_resources
from search.cluster.fitting import Free
from search.cluster.resources import Node, Resources
from search.config.study import SearchConfig
from search.inputs.members import cost_model, members_of, plan_of, times_wanted
from search.inputs.outline import StudyOutline, block_of, training_of
from search.needs.device import PlannedDevice
from search.per_layer.planning import layer_variants
from workspace.models import ModelSource


def outlined(config: SearchConfig, device: PlannedDevice) -> StudyOutline:
    """The study that `config` describes, on a device. Its text is not read, nor are weights.

    Raises SearchError, PruningError or DistillError where something cannot be used.
    """
    times = [] if config.budget.latency_table is not None else times_wanted(config)
    require(
        not times,
        f"--plan measures nothing, and {', '.join(times)} would have to be; leave them out of "
        "--budget and --objectives for the plan, or give --budget.latency_table",
    )
    teacher = ModelSource.described(config.teacher, prunable=True)
    check_type(config.export, teacher.config, part=teacher.part)
    block = block_of(config, teacher)
    variants = layer_variants(config, teacher.config, block=block)
    costs = cost_model(config, teacher.config, block=block)
    members = members_of(config, costs, device=device.type)
    return StudyOutline(
        config=config,
        teacher=teacher,
        members=members,
        per_layer=plan_of(config, variants, members[0]),
        block=block,
        training=training_of(config, block, precision=device.precision(config.training.precision)),
    )


def free_memory(config: SearchConfig, device: PlannedDevice) -> Free:
    """What runs may take of the machine and of a GPU, as a study's start counts it."""
    machine = device.machine
    if device.on_gpu and not device.here:
        return Free(math.inf, device.gpu_memory)
    return Free.now(machine, dashboard=config.dashboard, on_gpu=device.on_gpu)


def resources_of(config: SearchConfig, device: PlannedDevice) -> Resources:
    """What runs may take at once, but for memory. Raises SearchError where it is not there."""
    machine: Machine = device.machine
    node = Node(machine.cpus, device.count)
    return shared_resources(
        config.resources, device.type, nodes=[node], where="the machine that is planned for"
    )

"""The opening of a study: check what the user gave, take workspace and lease, agree on settings."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

from optuna.exceptions import ExperimentalWarning

from common.fingerprint import fingerprint
from common.machine import Machine
from common.signals import interruptible
from common.trackers import require_installed
from pruning.families import quiet
from search.cluster.cluster import available_resources, of_full_runs
from search.cluster.fitting import Free, fitted
from search.cluster.resources import Resources
from search.config.objectives import Objectives
from search.config.study import SearchConfig
from search.dashboards.pages import check_ports, study_page
from search.database.attributes import FINGERPRINT
from search.database.coordination import Coordination
from search.database.lease import drivers, leased, locked
from search.database.storage import open_storage
from search.database.storage_url import shown, take_storage_url
from search.inputs.inputs import Inputs
from search.run.context import StudyContext
from search.study.agreement import check_fingerprint, open_study, require_same_settings
from workspace.corpus import corpus_parts
from workspace.layout import Workspace
from workspace.settings import resolve_device

LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(config: SearchConfig, started: float) -> Iterator[StudyContext]:
    """Inside, the study is this driver's; the first Ctrl-C or SIGTERM raises Interrupted.

    It was `started` on the monotonic clock. Raises SearchError, PruningError or DistillError for
    what the user can mend.
    """
    with contextlib.ExitStack() as stack:
        received = stack.enter_context(interruptible())
        check_ports(config)
        require_installed(config.log_to)
        stack.enter_context(_libraries_quiet())
        workspace = Workspace(config.workspace.expanduser().absolute())
        url = take_storage_url(config.storage, workspace.root)
        resources = _resources(config)
        full_resources = of_full_runs(resources, config.workers_of_full_runs)
        inputs = Inputs.read(config)
        free = _free(config)
        if not workspace.prepared:
            LOGGER.info("teacher: loading")
            inputs.model()  # before anything is written
        workspace.make()
        stack.enter_context(locked(workspace.root))
        storage = open_storage(url, closing=lambda: bool(received))
        study = open_study(storage, config.study, objectives=Objectives.of(config.objectives))
        started_before = bool(study.get_trials(deepcopy=False))
        recorded = study.user_attrs.get(FINGERPRINT) if started_before else None
        inputs = inputs.going_on(recorded)
        training = inputs.resolved_training(recorded)
        parts = inputs.fingerprint_parts(training)
        LOGGER.info(f"study {config.study} in {shown(url)}, workspace {workspace.root}")
        require_same_settings(study, parts)
        stack.enter_context(study_page(config, storage, study, artifacts=workspace.artifacts))
        corpus = inputs.packed(recorded, workspace.root)
        parts |= corpus_parts(corpus, inputs.needed_tokens(recorded))
        need = inputs.need(training, resources.workers)
        resources, fitting = fitted(resources, need, free=free, config=config.resources)
        if full_resources.workers == resources.workers:
            full_resources = resources
        else:
            need = inputs.need(training, full_resources.workers)
            full_resources, _ = fitted(full_resources, need, free=free, config=config.resources)
        driver = stack.enter_context(leased(study, shared=storage.shared))
        coordination = Coordination(study, storage, token=driver.token)
        with coordination.exclusive():
            others = len(drivers(study)) > 1
            check_fingerprint(study, parts, bound=others)
        for line in fitting:
            LOGGER.info(line)
        yield StudyContext(
            inputs=inputs,
            training=training,
            corpus=corpus,
            workspace=workspace,
            resources=resources,
            full_resources=full_resources,
            study=study,
            # as recorded, so that full runs of an older version are found
            key=fingerprint(config.study, study.user_attrs[FINGERPRINT]),
            coordination=coordination,
            started=started,
        )


@contextlib.contextmanager
def _libraries_quiet() -> Iterator[None]:
    """Inside, no bar of transformers and no warning of what Optuna calls experimental stands
    between the lines: neither is the user's to mend."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _resources(config: SearchConfig) -> Resources:
    """What runs may take at once, but for memory."""
    machine = Machine.here()
    machine.keep_to_quota()
    device = resolve_device(config.device).type
    return available_resources(config.resources, device, address=config.address, machine=machine)


def _free(config: SearchConfig) -> Free | None:
    """Memory of this machine, without the teacher; None where runs are on other nodes."""
    if config.address is not None:
        return None
    on_gpu = resolve_device(config.device).type == "cuda"
    return Free.now(Machine.here(), dashboard=config.dashboard, on_gpu=on_gpu)

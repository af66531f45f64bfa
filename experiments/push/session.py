"""Upload a student, or say what would be uploaded."""

import logging

from common.log import timed_lines
from experiments.push.config import PushConfig
from workspace.publishing import Upload, check_target, publish

LOGGER = logging.getLogger(__name__)


@timed_lines()
def run_push(config: PushConfig) -> None:
    """Upload, or with `config.dry_run` say what would be.

    Raises:
        SearchError: The folder, the name or the token cannot be used.
        SearchStopped: The Hub cannot be reached, or fails.
    """
    upload = Upload(config.folder.expanduser(), config.repo, config.private)
    upload.check()
    check_target(config.repo, option="--repo", needs_hub=not config.dry_run)
    if not config.dry_run:
        publish(upload.folder, upload.repo, private=upload.private)
        return
    first, *others = upload.lines()
    for line in (f"would upload {first}", *others):
        LOGGER.info(line)

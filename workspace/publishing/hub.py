"""Upload of a student's folder to the Hugging Face Hub, as one commit.

The token is the Hub client's own: HF_TOKEN, or what `hf auth login` stored. It is never read here
but to see that there is one, and never shown.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
)
from huggingface_hub.utils import validate_repo_id

from common.errors import EspalierError, EspalierStopped, SearchError, SearchStopped, reason_of
from distill.targets import shown_bytes
from workspace.models import CARD
from workspace.models.locating import require_model

LOGGER = logging.getLogger(__name__)
HERE = 'model = "."'
"""What the snippet of a card loads, beside the weights that it lies with."""
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, by a token that may write"
REFUSED = (401, 403, 404)
"""Statuses of a Hub that knows no such token, or does not let it see or write that."""


def check_target(repo: str, *, option: str, needs_hub: bool = True) -> None:
    """Raises SearchError, before any work, where nothing can be uploaded to `repo`: for a name that
    is none and, where the Hub is needed, without a token and offline. `option` is what the user
    named it by."""
    try:
        validate_repo_id(repo)
    except HFValidationError as problem:
        raise SearchError(
            f"{option} is {repo!r}, which is no name of a model on the Hub; give one such as "
            "user/name"
        ) from problem
    if "/" not in repo:
        raise SearchError(
            f"{option} is {repo!r}, which names neither user nor organisation; give one such as "
            f"user/{repo}"
        )
    if not needs_hub:
        return
    if constants.is_offline_mode():
        raise SearchError(
            f"{option} is {repo}, but HF_HUB_OFFLINE is set, and the Hub is not asked; unset it"
        )
    if get_token() is None:
        raise SearchError(f"{option} is {repo}, but there is no token of the Hub; {LOG_IN}")


@dataclass(frozen=True)
class Upload:
    """A student's folder and its place on the Hub."""

    folder: Path
    """With weights, config.json and a card."""
    repo: str
    """Name on the Hub."""
    private: bool = True
    """Whether only its owner may see it."""

    @property
    def files(self) -> list[Path]:
        """What is uploaded, without hidden files; the largest first."""
        every = (path for path in self.folder.rglob("*") if path.is_file())
        seen = [p for p in every if not _hidden(p.relative_to(self.folder))]
        return sorted(seen, key=lambda path: (-path.stat().st_size, path))

    def check(self) -> None:
        """Raises SearchError for a folder that holds no whole model."""
        if not self.folder.is_dir():
            raise SearchError(f"{self.folder} is no folder; give that of a student, such as best")
        require_model(self.folder, f"the folder {self.folder}")

    def lines(self) -> list[str]:
        """What would be uploaded."""
        sizes = [path.stat().st_size for path in self.files]
        shown = "private" if self.private else "public"
        lines = [
            f"{len(sizes)} files, {shown_bytes(sum(sizes))}, to {self._address} ({shown}):",
            *(
                f"  {path.relative_to(self.folder).as_posix()}, {shown_bytes(size)}"
                for path, size in zip(self.files, sizes, strict=True)
            ),
        ]
        if not (self.folder / CARD).exists():
            lines.append(f"warning: there is no {CARD}: the page on the Hub will be empty")
        return lines

    def push(self) -> str:
        """Upload it, and return its address. The same call after a failure goes on: what the Hub
        has of large files is not sent again.

        Raises:
            SearchError: The name or the token is refused, or a public model of that name is there
                and this one is to be private.
            SearchStopped: The Hub cannot be reached, or fails.
        """
        self.check()
        with self._faults():
            api = HfApi()
            api.create_repo(self.repo, private=self.private, exist_ok=True)
            if self.private and not api.model_info(self.repo).private:
                raise SearchError(
                    f"{self.repo} is on the Hub already and public, and a student is uploaded "
                    "privately unless that is not wanted; give --no_private, or another name"
                )
            additions = []
            for number, path in enumerate(self.files, 1):
                name = path.relative_to(self.folder).as_posix()
                size = shown_bytes(path.stat().st_size)
                LOGGER.info(f"push: {number} of {len(self.files)}: {name}, {size}")
                addition = CommitOperationAdd(name, self._content(path))
                api.preupload_lfs_files(self.repo, [addition])
                additions.append(addition)
            api.create_commit(self.repo, additions, commit_message="Upload a student of Espalier")
        return self._address

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The Hub's refusals in one sentence, with what goes on after them."""
        again = f"`espalier push {self.folder} --repo {self.repo}` tries again"
        try:
            yield
        except (EspalierError, EspalierStopped):
            raise
        except HfHubHTTPError as problem:
            status = problem.response.status_code
            if status in REFUSED:
                raise SearchError(
                    f"the Hub refuses to write to {self.repo} (status {status}): the token may "
                    f"not, or the name is another's; {LOG_IN}, and {again}"
                ) from None
            raise SearchStopped(
                f"the Hub did not take {self.repo} (status {status}); {again}"
            ) from None
        except Exception as problem:  # of the connection: the client raises many unrelated types
            raise SearchStopped(
                f"{self.folder} was not uploaded to {self.repo} ({reason_of(problem)}); {again}"
            ) from None

    @property
    def _address(self) -> str:
        return f"{constants.ENDPOINT}/{self.repo}"

    def _content(self, path: Path) -> Path | bytes:
        """The file; of the card, with a snippet that loads the model from the Hub."""
        if path != self.folder / CARD:
            return path
        before, here, after = path.read_text("utf-8").partition(HERE)
        named = f'{before}model = "{self.repo}"{after}' if here else before
        return named.encode()


def publish(folder: Path, repo: str, *, private: bool = True) -> None:
    """Upload a student, and say what and where to. Raises what `Upload.push` raises."""
    upload = Upload(folder, repo, private)
    first, *others = upload.lines()
    for line in (f"uploading {first}", *others):
        LOGGER.info(line)
    LOGGER.info(f"uploaded: {upload.push()}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)

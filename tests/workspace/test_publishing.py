"""Uploads to the Hub: what is sent, whether it is private, and one sentence for each refusal. The
Hub is a function behind the client's own HTTP layer."""

import base64
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from huggingface_hub import constants, errors, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from common.errors import SearchError, SearchStopped
from experiments import run_distill, run_prune, run_search
from experiments.run_push import main
from workspace.publishing import Upload, check_target

HTTPX: Any = import_module(errors.HTTPError.__module__.partition(".")[0])
"""The client of the Hub's library: httpx2, and before its version 2 httpx."""
REPO, TOKEN = "someone/small", "hf_secretsecret"
CARD = '---\ntags: [espalier]\n---\n# small\n```python\nmodel = "."  # or its id\n```\n'


def mode(name: str) -> dict[str, Any]:
    """How the Hub wants a file."""
    large = name.endswith(".safetensors")
    return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


class Hub:
    """A Hub that remembers what it is sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.public = False
        self.status: dict[str, int] = {}
        """By the end of a path: what it is answered with instead."""
        self.committed: dict[str, bytes | str] = {}
        """Content by file; of a large one its digest."""

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        path = request.url.path
        for end, status in self.status.items():
            if path.endswith(end):
                return HTTPX.Response(status, json={"error": "no"}, request=request)
        if path == "/api/repos/create":
            return HTTPX.Response(200, json={"url": f"https://huggingface.co/{REPO}"})
        if path == f"/api/models/{REPO}":
            return HTTPX.Response(200, json={"id": REPO, "private": not self.public})
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(request.content)["files"]]
            return HTTPX.Response(200, json={"files": list(map(mode, names))})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(request.content)["objects"]
            return HTTPX.Response(200, json={"objects": objects})
        if path == "/api/validate-yaml":
            return HTTPX.Response(200, json={"errors": [], "warnings": []}, request=request)
        assert "/commit/" in path, path
        for line in map(json.loads, request.content.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.committed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.committed[value["path"]] = str(value["oid"])
        url = f"https://huggingface.co/{REPO}/commit/1"
        return HTTPX.Response(
            200, json={"commitUrl": url, "commitOid": "1", "commitMessage": "", "success": True}
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    set_client_factory(lambda: HTTPX.Client(transport=HTTPX.MockTransport(found)))
    yield found
    set_client_factory(default_client_factory)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "best"
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache" / "hidden").write_text("x")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"w" * 3000)
    (folder / "README.md").write_text(CARD)
    return folder


def test_everything_is_committed_at_once_and_privately(
    hub: Hub, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(student), "--repo", REPO]) == 0
    assert hub.committed.keys() == {"config.json", "model.safetensors", "README.md"}
    card = hub.committed["README.md"]
    assert isinstance(card, bytes)
    assert f'model = "{REPO}"  # or its id' in card.decode(), "the snippet loads it from the Hub"
    assert (student / "README.md").read_text() == CARD, "the one beside the weights stays"
    (creation,) = [each for each in hub.requests if each.url.path == "/api/repos/create"]
    created = json.loads(creation.content)
    assert created["name"] == "small" and created["organization"] == "someone"
    assert created["visibility"] == "private"
    own = [creation, *(each for each in hub.requests if REPO in each.url.path)]
    assert {each.headers["authorization"] for each in own} == {f"Bearer {TOKEN}"}
    said = "".join(capsys.readouterr())
    assert f"uploaded: https://huggingface.co/{REPO}" in said
    assert "push: 1 of 3: model.safetensors, 3.0 kB" in said
    assert TOKEN not in said


def test_a_dry_run_says_what_would_be_sent_and_asks_nobody(
    hub: Hub, student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main([str(student), "--repo", REPO, "--dry_run", "--no_private"]) == 0
    said = capsys.readouterr().out
    assert f"would upload 3 files, 3.1 kB, to https://huggingface.co/{REPO} (public)" in said
    assert "  model.safetensors, 3.0 kB" in said and "hidden" not in said
    assert not hub.requests


def test_a_public_model_of_that_name_is_not_written_to_unasked(hub: Hub, student: Path) -> None:
    hub.public = True
    with pytest.raises(SearchError, match="is on the Hub already and public"):
        Upload(student, REPO).push()
    assert not hub.committed
    Upload(student, REPO, private=False).push()
    assert hub.committed


@pytest.mark.parametrize(
    ("where", "status", "kind", "said"),
    [
        ("/preupload/main", 401, SearchError, r"refuses to write to someone/small \(status 401\)"),
        ("/batch", 403, SearchError, "log in with `hf auth login`, or set HF_TOKEN"),
        ("/preupload/main", 404, SearchError, r"refuses to write to someone/small \(status 404\)"),
        ("/commit/main", 500, SearchStopped, r"did not take someone/small \(status 500\)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    hub: Hub, student: Path, where: str, status: int, kind: type[Exception], said: str
) -> None:
    hub.status = {where: status}
    with pytest.raises(kind, match=said) as problem:
        Upload(student, REPO).push()
    assert "\n" not in str(problem.value) and TOKEN not in str(problem.value)
    assert f"`espalier push {student} --repo {REPO}` tries again" in str(problem.value)


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Hub, student: Path) -> None:
    def unreachable(request: Any) -> Any:
        raise HTTPX.ConnectError("no route to host")

    set_client_factory(lambda: HTTPX.Client(transport=HTTPX.MockTransport(unreachable)))
    with pytest.raises(SearchStopped, match=r"was not uploaded to .* \(.*no route to host"):
        Upload(student, REPO).push()


def no_token(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("workspace.publishing.hub.get_token", lambda: None)


def offline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("a/b/c", None, "--push_to_hub is 'a/b/c', which is no name of a model on the Hub"),
        ("small", None, "--push_to_hub is 'small', which names neither user nor organisation"),
        (REPO, no_token, "there is no token of the Hub; log in"),
        (REPO, offline, "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_target_is_checked_before_any_work(
    name: str,
    change: Callable[[Any], None] | None,
    said: str,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if change is not None:
        change(monkeypatch)
    with pytest.raises(SearchError, match=said):
        check_target(name, option="--push_to_hub")
    assert not hub.requests


def test_a_folder_without_a_model_is_refused_with_the_one_that_has_it(
    hub: Hub, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(student.parent), "--repo", REPO]) == 2
    said = capsys.readouterr().err
    assert "has no config.json, but its folder best has; give that one" in said
    assert main([str(student / "nothing"), "--repo", REPO]) == 2
    assert not hub.requests


@pytest.mark.parametrize("command", [run_search, run_prune, run_distill])
def test_every_command_looks_at_the_target_before_its_work(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Offline, as all tests are."""
    options = {"teacher": "t", "student": "s", "corpus": "c", "output": "o", "ffn": 8}
    known = {run_search: "teacher corpus", run_prune: "teacher corpus output ffn"}
    names = known.get(command, "teacher student corpus output").split()
    given = [f"--{name}={options[name]}" for name in names]
    assert command.main([*given, f"--push_to_hub={REPO}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --push_to_hub is {REPO}, but HF_HUB_OFFLINE is set")

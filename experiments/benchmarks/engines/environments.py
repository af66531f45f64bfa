"""The engines that install from the package index on a CPU, each in an environment of its own."""

import json
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.engines import CTRANSLATE2, LLAMA_CPP, MLX, TRANSFORMERS_4

READERS = Path(__file__).with_name("readers")
TRANSFORMERS_PACKAGES = ("transformers==4.57.6", "torch", "sentencepiece", "protobuf")
LLAMA_CPP_PACKAGE = "llama-cpp-python==0.3.36"
READY = ".ready"


@dataclass(frozen=True)
class Environment:
    """Packages of one engine and the script that asks it for logits."""

    engine: str
    packages: tuple[str, ...]
    reader: str

    def python(self, cache: Path) -> Path:
        return cache / self.engine / "bin" / "python"

    def ready(self, cache: Path) -> bool:
        """Whether it was installed into `cache` in full."""
        file = cache / self.engine / READY
        return file.exists() and json.loads(file.read_text()) == list(self.packages)

    def install(self, cache: Path) -> None:
        """Raises CalledProcessError where pip does."""
        if self.ready(cache):
            return
        print(f"{self.engine}: installing {', '.join(self.packages)} into {cache}", flush=True)
        venv.create(cache / self.engine, with_pip=True, clear=True)
        pip = [str(self.python(cache)), "-m", "pip", "--quiet"]
        packages = [name for name in self.packages if name != LLAMA_CPP_PACKAGE]
        subprocess.run([*pip, "install", *packages], check=True)
        if LLAMA_CPP_PACKAGE in self.packages:
            archive = _llama_cpp_archive(pip, cache)
            subprocess.run([*pip, "install", str(archive)], check=True)
        (cache / self.engine / READY).write_text(json.dumps(self.packages))

    def read(
        self, folders: Sequence[Path], ids: Sequence[int], cache: Path, *, greedy: int = 0
    ) -> list[dict[str, Any]]:
        """What the engine says of each checkpoint: "logits", a file [positions, vocabulary], or an
        "error"; and "unquantised", its tensors that the quantised format leaves out.

        Positions are those of `ids` and, with llama.cpp and mlx-lm, of `greedy` more tokens, each
        the likeliest.
        """
        asked = {
            "folders": [str(folder.absolute()) for folder in folders],
            "ids": list(ids),
            "greedy": greedy,
            "source": str(llama_cpp_source(cache).absolute()),
        }
        python = self.python(cache).absolute()
        with tempfile.TemporaryDirectory() as scratch:
            request = Path(scratch) / f"{self.engine}.json"
            request.write_text(json.dumps(asked))
            with (cache / f"{self.engine}.log").open("w") as log:
                command = [str(python), str(READERS / self.reader), str(request)]
                subprocess.run(command, check=True, stdout=log, stderr=log)
            answers: list[dict[str, Any]] = json.loads(request.with_suffix(".answers").read_text())
        return answers


ENVIRONMENTS = {
    environment.engine: environment
    for environment in (
        Environment(TRANSFORMERS_4, TRANSFORMERS_PACKAGES, "read_transformers.py"),
        Environment(LLAMA_CPP, (*TRANSFORMERS_PACKAGES, LLAMA_CPP_PACKAGE), "read_llama_cpp.py"),
        Environment(
            CTRANSLATE2, (*TRANSFORMERS_PACKAGES, "ctranslate2==4.8.5"), "read_ctranslate2.py"
        ),
        Environment(MLX, ("mlx-lm==0.32.2", "mlx[cpu]==0.32.4"), "read_mlx.py"),
    )
}


def llama_cpp_source(cache: Path) -> Path:
    """llama.cpp as it lies in the source archive of its Python package."""
    name = LLAMA_CPP_PACKAGE.replace("-", "_").replace("==", "-")
    return cache / "source" / name / "vendor" / "llama.cpp"


def _llama_cpp_archive(pip: Sequence[str], cache: Path) -> Path:
    """The source archive, unpacked beside it: the converter is in it and not in the package."""
    folder = cache / "source"
    command = [*pip, "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    subprocess.run([*command, "--dest", str(folder), LLAMA_CPP_PACKAGE], check=True)
    (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return archive


def describe() -> str:
    """The versions, as the table's heading has them."""
    packages = {package for each in ENVIRONMENTS.values() for package in each.packages}
    return ", ".join([f"Python {sys.version.split()[0]}", *sorted(packages)])

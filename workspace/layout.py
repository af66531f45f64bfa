"""Layout of a workspace: where everything that is computed once is kept, and under which name.

A name carries a fingerprint of all that the thing depends on. What does not match is computed
again, never silently reused.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import SearchError
from common.files import free_bytes
from distill.targets import shown_bytes

RAY_ERRORS = "ray-errors.log"
"""Name of the file with Ray's own words, in the workspace of a search or the output of a run."""
FIGURES = "report"
"""Name of the folder beside a study's page with its figures as files."""


@dataclass(frozen=True)
class Workspace:
    """Paths inside the directory of a study or of a run."""

    root: Path
    """The directory."""
    option: str = "--workspace"
    """What the user names it by."""

    def make(self) -> None:
        """Raises SearchError where the directory cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".probe"
            probe.write_text("")
            probe.unlink()
        except OSError as problem:
            raise SearchError(
                f"the workspace {self.root} cannot be written ({problem.strerror}); choose another "
                f"{self.option}"
            ) from problem

    def importance(self, name: str) -> Path:
        """Scores of a model's parts."""
        return self.root / f"importance-{name}.safetensors"

    def importance_parts(self, name: str) -> Path:
        """What these come from, piece by piece, while they are measured."""
        return self.root / f"importance-{name}-parts"

    def sorted_teacher(self, name: str) -> Path:
        """A model sorted by importance."""
        return self.root / f"sorted-{name}"

    def library(self, name: str) -> Path:
        """Attentions and FFNs of a sorted model, trained at several sizes."""
        return self.root / f"library-{name}"

    def block_scores(self, name: str) -> Path:
        """What a model loses with one other attention or FFN."""
        return self.root / f"block-scores-{name}.jsonl"

    def text_model(self, name: str) -> Path:
        """The text model of a multimodal teacher."""
        return self.root / f"text-{name}"

    def corrected_teacher(self, name: str) -> Path:
        """The teacher after its fine-tuning on the corpus."""
        return self.root / f"teacher-{name}"

    def correction(self, name: str) -> Path:
        """The checkpoint of that fine-tuning while it goes on."""
        return self.root / f"correction-{name}"

    def warm_start(self, name: str) -> Path:
        """A student after its block-wise distillation."""
        return self.root / f"warm-{name}"

    def trial_student(self, number: int, name: str) -> Path:
        """The student of a trial of a search, cut again."""
        return self.root / f"trial-{number}-{name}"

    def latencies(self, name: str) -> Path:
        """Latencies that were measured on a machine."""
        return self.root / f"latency-{name}.csv"

    def block_latencies(self, name: str) -> Path:
        """Latencies of sub-blocks that were measured on a machine."""
        return self.root / f"block-latency-{name}.json"

    def combinations(self, study: str, number: int) -> Path:
        """Combinations of blocks that a round of a study found."""
        return self.root / f"per-layer-{study}-{number}.json"

    @property
    def prepared(self) -> bool:
        """Whether a start of a study came as far as a sorted teacher."""
        return any(self.root.glob("sorted-*"))

    @property
    def partly_prepared(self) -> bool:
        """Whether one left anything that is computed once."""
        return any(any(self.root.glob(f"{kind}-*")) for kind in ("importance", "targets"))

    def targets(self, split: str, name: str) -> Path:
        """The teacher's targets on a split of the corpus."""
        return self.root / f"targets-{split}-{name}"

    def checkpoints(self, study: str) -> Path:
        """Of the runs that are going on, by study."""
        return self.root / "checkpoints" / study

    def full(self, study: str) -> Path:
        """Finished full runs, by study: one directory each with its model."""
        return self.root / "full" / study

    def member(self, name: str) -> "Workspace":
        """Where the results of a member of a family go."""
        return Workspace(self.root / "family" / name)

    @property
    def ray(self) -> Path:
        """Folder that Ray writes to while a run has several workers."""
        return self.root / "ray"

    @property
    def ray_errors(self) -> Path:
        """Ray's own words on workers that failed; outlives `ray`."""
        return self.root / RAY_ERRORS

    @property
    def artifacts(self) -> Path:
        """Files of the result under the names that Optuna gave them, for optuna-dashboard."""
        return self.root / "artifacts"

    @property
    def best(self) -> Path:
        """The best student, for others to use."""
        return self.root / "best"

    @property
    def winners(self) -> Path:
        """The other winners, each in a folder named after its rank."""
        return self.root / "winners"

    def winner_folders(self, count: int) -> list[Path]:
        """Where `count` winners go, the best first."""
        return [self.best, *(self.winners / str(rank) for rank in range(2, count + 1))][:count]

    def baseline(self, name: str) -> Path:
        """A baseline that is better than the winner; `name` is its own."""
        return self.baselines / name.replace(" ", "-")

    @property
    def baselines(self) -> Path:
        """Those baselines, each in a folder named after it."""
        return self.root / "baselines"

    @property
    def results(self) -> Path:
        """Results of a study, as JSON."""
        return self.root / "results.json"

    @property
    def trials_table(self) -> Path:
        """All trials of a study."""
        return self.root / "trials.csv"

    @property
    def report(self) -> Path:
        """Report of a study, as a page."""
        return self.root / "report.html"

    @property
    def figures(self) -> Path:
        """Figures and tables of that page as files."""
        return self.root / FIGURES

    def used(self) -> int:
        """Bytes of all files in it."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def require_space(self, needed: int) -> None:
        """Raises SearchError where the disk has less than `needed` bytes left."""
        free = free_bytes(self.root)
        if free < needed:
            raise SearchError(
                f"the study needs up to {shown_bytes(needed)} in {self.root}, which has "
                f"{shown_bytes(free)} left; free some, lower --full_tokens or --training.draws, or "
                f"choose another {self.option}"
            )

"""Which model types of the installed transformers can be cut, and on which axes.

    python experiments/benchmarks/families.py --output families --docs docs/families.md

Every type with a causal LM is looked at in a process of its own, with a limit of time: its row is
written, inferred and proven on a tiny random model, or refused with the reason; written rows are
inferred too, as tests of the inference. Rows are kept in OUTPUT/rows.jsonl as they come; the same
command goes on where it was stopped, and writes the tables into the page at --docs.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from common.files import append_rows, read_rows, write_file_atomically
from common.progress import Progress

Row = dict[str, Any]
COLUMNS = {
    "layers": ("layers",),
    "hidden": ("hidden",),
    "FFN": ("ffn",),
    "heads": ("heads",),
    "KV heads": ("kv_heads",),
    "experts": ("experts",),
    "expert FFN": ("expert_ffn",),
    "shared FFN": ("shared_ffn",),
    "Mamba": ("ssm_heads", "ssm_head_dim", "ssm_groups", "ssm_state"),
}
"""Column of the table -> its axes."""
BEGIN, END = "<!-- made by experiments/benchmarks/families.py -->", "<!-- end -->"
LONGEST_REASON = 110


def verdict_of(model_type: str) -> Row:
    """The row of one type."""
    import pruning  # noqa: F401 - which sets how types without a row are inferred
    from common.errors import PruningError
    from pruning.inference import Comparison, TypeVerdict, default_config

    try:
        config = default_config(model_type)
    except PruningError as problem:
        return {"row": "refused", "reason": str(problem)}
    verdict = TypeVerdict.of(config)
    row = {**vars(verdict), "whole": dict(verdict.whole)}
    if verdict.row == "written":
        row["inference"] = vars(Comparison.of(config))
    return row


def _serve(connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        model_type = connection.recv()
        try:
            connection.send(verdict_of(model_type))
        except Exception as problem:  # a type that breaks is a row of the table too
            connection.send({"row": "refused", "reason": f"{type(problem).__name__}: {problem}"})


class Worker:
    """A process that looks at types, and is replaced where one takes too long or kills it."""

    def __init__(self, limit: float):
        self.limit = limit
        self._process: Any = None

    def row(self, model_type: str) -> Row:
        """The row of a type; refused where its time is up."""
        if self._process is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        self._connection.send(model_type)
        try:
            if self._connection.poll(self.limit):
                row: Row = self._connection.recv()
                return row
            reason = f"it took longer than {self.limit:.0f} s"
        except EOFError:
            reason = "the process ended without a word"
        self.close()
        return {"row": "refused", "reason": reason}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def types() -> list[str]:
    """All types with a causal LM, in the order of the alphabet."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tables(rows: Sequence[Row], versions: str) -> str:
    """Both tables, in Markdown."""
    rows = sorted(rows, key=lambda row: str(row["type"]))
    kinds = {kind: [row for row in rows if row["row"] == kind] for kind in ("written", "inferred")}
    refused = [row for row in rows if row["row"] == "refused"]
    enough = [row for row in rows if cuttable(row)]
    lines = [
        f"{len(rows)} types of {versions}: {len(kinds['written'])} have a written row, "
        f"{len(kinds['inferred'])} are inferred, {len(refused)} are refused. {len(enough)} can be "
        "cut in layers, hidden size and FFN (their own or their experts').",
        "",
        f"| type | row | {' | '.join(COLUMNS)} | kept whole, and why |",
        f"|---|---|{'---|' * len(COLUMNS)}---|",
        *(_line(row) for row in (*kinds["written"], *kinds["inferred"])),
        "",
        "| refused | what stood in the way |",
        "|---|---|",
        *(f"| {row['type']} | {_short(row['reason'])} |" for row in refused),
        "",
        "What the inference makes of the types that have a written row, without looking at it:",
        "",
        "| type | proves | misses | reads otherwise |",
        "|---|---|---|---|",
        *(_inference(row) for row in kinds["written"]),
    ]
    return "\n".join(lines)


def cuttable(row: Row) -> bool:
    """Whether layers, hidden size and the FFN or that of experts are proven."""
    proven = {*row.get("proven", ()), *row.get("untried", ())}
    return {"layers", "hidden"} <= proven and bool({"ffn", "expert_ffn"} & proven)


def _line(row: Row) -> str:
    marks = [_mark(row, axes) for axes in COLUMNS.values()]
    whole = "; ".join(f"{axis}: {_short(reason)}" for axis, reason in row["whole"].items())
    return f"| {row['type']} | {row['row']} | {' | '.join(marks)} | {whole} |"


def _mark(row: Row, axes: Sequence[str]) -> str:
    if any(axis in row["proven"] for axis in axes):
        return "yes"
    if any(axis in row["untried"] for axis in axes):
        return "row"
    return "no" if any(axis in row["whole"] for axis in axes) else ""


def _inference(row: Row) -> str:
    found = row["inference"]
    if found["refused"]:
        return f"| {row['type']} | nothing: {_short(found['refused'])} | | |"
    shown = [", ".join(found[part]) for part in ("found", "missed", "otherwise")]
    return f"| {row['type']} | {' | '.join(shown)} |"


def _short(reason: str) -> str:
    reason = " ".join(reason.split()).split("could be inferred: ")[-1]
    reason = reason.removesuffix(" (docs/families.md tells how)").replace("|", "/")
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + " ..."


def write_docs(page: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_file_atomically(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _missing(wanted: Sequence[str], options: argparse.Namespace) -> Iterator[Row]:
    """The rows of the types that have none yet, as they come."""
    file = options.output / "rows.jsonl"
    known = {row["type"] for row in read_rows(file)}
    left = [model_type for model_type in wanted if model_type not in known]
    progress, worker = Progress(len(wanted), done=len(wanted) - len(left)), Worker(options.limit)
    try:
        for number, model_type in enumerate(left, len(wanted) - len(left) + 1):
            started = time.monotonic()
            row = {"type": model_type, **worker.row(model_type)}
            row["seconds"] = round(time.monotonic() - started, 1)
            append_rows(file, [row])
            minutes = progress.left(number) / 60
            print(f"[{number} of {len(wanted)}, {minutes:.0f} min left] {model_type}: {row['row']}")
            yield row
    finally:
        worker.close()


def main() -> None:
    """Look at all types that are missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("families"))
    parser.add_argument("--docs", type=Path, help="page to write the tables into")
    parser.add_argument("--limit", type=float, default=180, help="seconds for one type")
    parser.add_argument("--types", nargs="*", help="these types alone")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    import torch
    import transformers

    for _ in _missing(options.types or types(), options):
        pass
    versions = f"transformers {transformers.__version__} and torch {torch.__version__}"
    text = tables(read_rows(options.output / "rows.jsonl"), versions)
    if options.docs:
        write_docs(options.docs, text)
    else:
        print(text)


if __name__ == "__main__":
    main()

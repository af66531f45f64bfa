"""How fast a corpus of any size is packed, in how much memory, and whether it goes on after a kill.

    python experiments/benchmarks/distill/packing.py --gigabytes 5 --work /tmp/packing

Writes so many GB of JSON lines (files of the standard library and the installed packages, each row
with its own number, until there are enough), then in processes of their own: the tokenizer alone on
the same texts, packing all of it as the commands do, and packing again with a kill -9 in the
middle. Prints tokens/s and the largest resident memory of each, and whether both packed the same.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from common.log import plain_lines
from experiments.benchmarks.demo_setting import TEACHER

BLOCK = 1024
ROW_CHARACTERS = 4000
MORE_THAN_THERE_ARE = 10**12
BATCH = 512


def texts() -> Iterator[str]:
    """Pieces of Python files, again and again, each with a number of its own."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    paths += sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    for number in itertools.count():
        for path in paths:
            text = path.read_text("utf-8", errors="ignore")
            for at in range(0, len(text), ROW_CHARACTERS):
                yield f"# {number}:{at} {path.name}\n{text[at : at + ROW_CHARACTERS]}"


def write_rows(path: Path, size: float) -> None:
    """So many bytes of rows; nothing where they are there."""
    if path.exists() and path.stat().st_size >= size:
        return
    with path.open("w") as file:
        for text in texts():
            file.write(json.dumps({"text": text}) + "\n")
            if file.tell() >= size:
                return


@plain_lines()
def pack(path: Path, work: Path) -> None:
    """All of the corpus, as a command packs it."""
    from transformers import AutoTokenizer

    from distill import CorpusFiles, CorpusFrom, CorpusPlan, Packing

    packing = Packing(BLOCK, reading=CorpusFrom(tokens=MORE_THAN_THERE_ARE))
    plan = CorpusPlan.of(str(path), CorpusFiles(), packing=packing)
    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    corpus = plan.packed(tokenizer, "demo", root=work)
    facts = corpus.facts
    total = sum(facts[f"{split}_documents"] for split in ("train", "selection", "test"))
    print(json.dumps({"digest": corpus.digest, "documents": total, **facts}))


def tokenise(path: Path, rows: int) -> None:
    """The first rows by the tokenizer alone, from memory; prints its tokens/s."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TEACHER / "tokenizer.json"))
    with path.open() as file:
        held = [json.loads(line)["text"] for line in itertools.islice(file, rows)]
    begin, tokens = time.perf_counter(), 0
    for start in range(0, len(held), BATCH):
        found = tokenizer.encode_batch_fast(held[start : start + BATCH], add_special_tokens=False)
        tokens += sum(len(each.ids) for each in found)
    seconds = time.perf_counter() - begin
    print(json.dumps({"tokens": tokens, "tokens_per_second": tokens / seconds}))


def measured(arguments: list[str], kill_after: float | None = None) -> dict[str, Any]:
    """Run this file with the arguments: seconds, largest resident memory, what it printed last.

    Kills it after so many seconds.
    """
    begin = time.perf_counter()
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if kill_after is not None and time.perf_counter() - begin > kill_after:
            process.kill()
            break
        time.sleep(0.05)
    printed = process.communicate()[0].splitlines()
    seconds = time.perf_counter() - begin
    for line in printed[:-1]:
        print(f"    {line}")
    if process.returncode not in (0, -9):
        raise SystemExit(f"{command} ended with {process.returncode}")
    last = json.loads(printed[-1]) if process.returncode == 0 else {}
    return {"seconds": seconds, "peak_bytes": peak, **last}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=5.0, help="of JSON lines")
    parser.add_argument("--work", type=Path, required=True, help="folder for all of it")
    parser.add_argument("--rows", type=int, default=50_000, help="for the tokenizer alone")
    parser.add_argument("--pack", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenise", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pack:
        return pack(options.pack, options.work)
    if options.tokenise:
        return tokenise(options.tokenise, options.rows)
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "rows.jsonl"
    write_rows(path, options.gigabytes * 1e9)
    alone = measured(["--tokenise", str(path), "--rows", str(options.rows), "--work", "."])
    print(f"tokenizer alone: {alone['tokens_per_second']:,.0f} tokens/s", flush=True)
    whole, cut = options.work / "whole", options.work / "cut"
    for folder in (whole, cut):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    first = measured(["--pack", str(path), "--work", str(whole)])
    tokens = sum(first[f"{split}_tokens"] for split in ("train", "selection", "test"))
    print(
        f"packed: {path.stat().st_size / 1e9:.2f} GB, {first['documents']:,} documents, "
        f"{tokens:,} tokens in {first['seconds']:.0f} s, {tokens / first['seconds']:,.0f} "
        f"tokens/s, at most {first['peak_bytes'] / 1e9:.2f} GB resident",
        flush=True,
    )
    killed = measured(["--pack", str(path), "--work", str(cut)], first["seconds"] / 2)
    again = measured(["--pack", str(path), "--work", str(cut)])
    print(
        f"killed after {killed['seconds']:.0f} s and started again: {again['seconds']:.0f} s more, "
        f"at most {again['peak_bytes'] / 1e9:.2f} GB resident, the same corpus: "
        f"{again['digest'] == first['digest']}"
    )
    return None


if __name__ == "__main__":
    main()

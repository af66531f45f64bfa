"""Write the table of a workspace's files from the code, while the documentation is built."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import mkdocs_gen_files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workspace.layout import Workspace

PAGE = "reference/workspace.md"


def rows() -> Iterator[str]:
    """A row for each file or folder, in the order of the code; what names it in capitals."""
    place = Workspace(Path())
    for name, member in vars(Workspace).items():
        asked = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(asked) or asked.__annotations__.get("return") is not Path:
            continue
        parts = [part.upper() for part in inspect.signature(asked).parameters if part != "self"]
        found = getattr(place, name)
        path = found(*parts) if callable(found) else found
        meaning = " ".join((inspect.getdoc(asked) or "").split())
        yield f"| `{path}` | {meaning} |"


with mkdocs_gen_files.open(PAGE, "a") as page:
    page.write("\n".join(["| file or folder | what it has |", "|---|---|", *rows()]) + "\n")

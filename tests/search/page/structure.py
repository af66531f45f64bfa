"""Structure of a page, as a browser without scripts and a screen reader find it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}
LOADED = ("src", "data", "poster", "srcset", "action")


@dataclass
class Table:
    """A table of the page."""

    caption: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    rows: int = 0
    cells: list[str] = field(default_factory=list)


class Structure(HTMLParser):
    """Everything that the checks look at."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tables: list[Table] = []
        self.pictures: list[dict[str, str]] = []
        self.attributes: dict[str, dict[str, str]] = {}
        self.metas = ""
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes.setdefault(tag, known)
        if tag not in VOID:
            self._open.append(tag)
        self.ids += [known["id"]] if "id" in known else []
        for name in ("aria-labelledby", "aria-describedby"):
            self.wanted += known.get(name, "").split()
        if tag == "meta":
            self.metas += known.get("content", "")
        if tag == "a":
            self.links.append(known["href"])
        self.loaded += [known[name] for name in LOADED if name in known]
        self.loaded += [known["href"]] if tag in ("link", "image") else []
        if tag == "table":
            self.tables.append(Table())
        elif tag == "th":
            self.tables[-1].headers.append(known)
        elif tag == "tr":
            self.tables[-1].rows += 1
        elif tag == "svg":
            self.pictures.append(known)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.text.append(data)
        if "caption" in self._open:
            self.tables[-1].caption += data
        elif "td" in self._open or "th" in self._open:
            self.tables[-1].cells.append(data)

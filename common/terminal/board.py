"""Board: what is known of the work that runs now, from the facts that it tells."""

import time
from dataclasses import dataclass, field

from common.progress import Facts, RunPace, duration

SOON = 3.0
"""Seconds below which no number is said any more."""


@dataclass
class Board:
    """The facts that hold now."""

    facts: Facts = field(default_factory=Facts)
    """As they were told last."""
    runs: dict[str, RunPace | None] = field(default_factory=dict)
    """How far each run is that has begun and not ended."""
    heard: dict[str, float] = field(default_factory=dict)
    """When that was told, on the monotonic clock."""
    since: float = field(default_factory=time.monotonic)
    """When the work began, on the monotonic clock."""
    ends: float | None = None
    """When everything is done, by what was told last."""

    def take(self, facts: Facts) -> None:
        """Take up what is told."""
        now = time.monotonic()
        if "stage" in facts:
            self.runs.clear()
        if "stage" in facts or ("work" in facts and facts["work"] != self.facts.get("work")):
            for name in ("work", "done", "total", "unit", "speed"):
                self.facts.pop(name, None)  # type: ignore[misc]
            self.since = now
        if "left" in facts:
            self.ends = now + facts["left"]
        if "begun" in facts:
            self.runs.setdefault(facts["begun"], None)
        if "over" in facts:
            self.runs.pop(facts["over"], None)
        pace = facts.get("at")
        if pace is not None and (pace.name in self.runs or not self.facts.get("stage")):
            self.runs[pace.name], self.heard[pace.name] = pace, now
            if not self.facts.get("stage"):
                self.ends = now + pace.left
        self.facts.update(facts)

    @property
    def heading(self) -> str:
        """Which stage and which work, such as "stage 3 of 5, trials"."""
        facts, parts = self.facts, []
        if "stages" in facts:
            parts.append(f"stage {facts.get('number', 1)} of {facts['stages']}")
        stage, work = facts.get("stage", ""), facts.get("work", "")
        names = [stage, "" if stage.startswith(work) else work]
        return ", ".join([*parts, *(name for name in names if name)])

    @property
    def amount(self) -> str:
        """How much of the work is done, "" where that is not known."""
        facts = self.facts
        if "done" not in facts:
            return ""
        total = f" of {facts['total']:,.0f}" if "total" in facts else ""
        return f"{facts['done']:,.0f}{total} {facts.get('unit', '')}".rstrip()

    @property
    def share(self) -> float | None:
        """Of the work that is done; None where that is not known."""
        done, total = self.facts.get("done"), self.facts.get("total")
        return None if done is None or not total else min(1.0, done / total)

    @property
    def speed(self) -> str:
        """Of the work or of all runs together, "" where that is not known."""
        running = sum(pace.speed for pace in self.runs.values() if pace)
        if running:
            return f"{running:,.0f} tokens/s"
        known = self.facts.get("speed")
        return f"{known:,.0f} {self.facts.get('unit', '')}/s" if known else ""

    @property
    def time_left(self) -> str:
        """In words, "" where nothing is known."""
        if self.ends is None:
            return ""
        now = time.monotonic()
        running = [pace.left - (now - self.heard[pace.name]) for pace in self.runs.values() if pace]
        left = max([self.ends - now, *running])  # nothing ends before its runs
        if left > SOON:
            return f"about {duration(left)} left"
        last = self.facts.get("number", 1) == self.facts.get("stages", 1)
        return "nearly done" if last and left > -10 * SOON else "longer than planned"

    @property
    def spent(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.since

    def line(self) -> str:
        """All of it in one line, for where nothing else was said for a while; "" of nothing."""
        if not self.heading and not self.runs:
            return ""
        running = f"{len(self.runs)} running" if self.runs else ""
        facts = [self.amount, running, self.speed, self.facts.get("best", "")]
        if not any(facts[:3]):
            facts.append(f"{duration(self.spent)} so far")
        said = ", ".join(fact for fact in facts if fact)
        left = f"; {self.time_left}" if self.time_left else ""
        return f"{self.heading or 'training'}: {said}{left}"

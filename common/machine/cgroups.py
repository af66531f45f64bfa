"""Limits of CPUs and memory by control groups, with which containers and job schedulers bound a
process.

Own code, since no library that is here reads what a process may really use: joblib and Ray read
the group at the root of the mount alone (which is another's outside of a container's own view),
round 1.5 CPUs up or half a CPU to none, and psutil reads no group at all. Here both versions of
Linux's control groups are read, in the process's own group and in all around it; the tightest
bound holds. Where there are none, such as on macOS, nothing is bound.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")
SYSTEM_KILLS = Path("/proc/vmstat")
"""Counts what was killed for memory on the whole machine."""
UNBOUNDED = 2**60
"""Bytes of memory above which a limit of version 1 is none."""


@dataclass(frozen=True)
class Cgroups:
    """Folders of the groups that a process is in, by controller: its own first, then those around
    it."""

    cpu: tuple[Path, ...] = ()
    """Folders of the groups that bound CPU time."""
    memory: tuple[Path, ...] = ()
    """Folders of the groups that bound memory."""

    @classmethod
    def of(cls, process: Path = PROCESS) -> "Cgroups":
        """Those of a process, by its folder in /proc."""
        try:
            groups = (process / "cgroup").read_text()
            mounts = (process / "mountinfo").read_text()
        except OSError:
            return cls()
        return cls(*(_folders(groups, mounts, controller=name) for name in ("cpu", "memory")))

    @property
    def cpu_quota(self) -> float | None:
        """CPUs' worth of time, such as 1.5; None: no bound."""
        return min(filter(None, map(_quota, self.cpu)), default=None)

    @property
    def memory_left(self) -> int | None:
        """Bytes before the kernel kills or throttles for memory; None: no bound.

        The cache of files that are not in use counts as free, as it is in `free -m`.
        """
        found = (_left(folder) for folder in self.memory)
        return min((left for left in found if left is not None), default=None)

    @property
    def memory_limit(self) -> int | None:
        """Bytes that all processes of the group may take together; None: no bound."""
        return min((limit for folder in self.memory for limit in _limits(folder)), default=None)

    def memory_kills(self, system: Path = SYSTEM_KILLS) -> int:
        """How many processes of the group were killed for memory since it is there.

        Where the group does not say, of the whole machine.
        """
        for folder in self.memory[:1]:
            for name in ("memory.events", "memory.oom_control"):
                if (count := _fields(folder / name).get("oom_kill")) is not None:
                    return count
        return _fields(system).get("oom_kill", 0)


def _folders(groups: str, mounts: str, *, controller: str) -> tuple[Path, ...]:
    """From the group to the root of its mount; version 1 where both know the controller."""
    for version, options, root, point in sorted(_mounts(mounts)):
        if version == "cgroup" and controller not in options:
            continue
        for line in groups.splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(",") if version == "cgroup" else not names:
                own = _inside(Path(point), root, path=path)
                return (own, *(up for up in own.parents if up.is_relative_to(point)))
    return ()


def _mounts(text: str) -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """Of control groups: file system, its options, the group that is mounted, and where."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, root, point, *_ = before.split(" ")
            yield kind, tuple(options.split(",")), root, point.replace("\\040", " ")


def _inside(point: Path, root: str, *, path: str) -> Path:
    """Where a group lies below the mount of the group `root`; the mount itself where it is not
    below it, as in a container that sees its own group alone but is told its outer name."""
    below = Path(path)
    if below.is_relative_to(root):
        found = point / below.relative_to(root)
        if found.is_dir():
            return found
    return point


def _quota(folder: Path) -> float | None:
    share = _words(folder / "cpu.max")
    if not share:
        share = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, share)
    except ValueError:  # no such files, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None


def _limits(folder: Path) -> list[int]:
    return [
        int(word)
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        for word in _words(folder / name)
        if word.isdecimal() and int(word) < UNBOUNDED
    ]


def _left(folder: Path) -> int | None:
    limits = _limits(folder)
    used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
    if not limits or not used:
        return None
    facts = _fields(folder / "memory.stat")
    idle = facts.get("total_inactive_file", facts.get("inactive_file", 0))
    return max(0, min(limits) - int(used[0]) + idle)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _fields(path: Path) -> dict[str, int]:
    """Numbers by name, of a file with one of both in each line."""
    return dict(_pairs(path))


def _pairs(path: Path) -> Iterable[tuple[str, int]]:
    words = _words(path)
    for name, value in zip(words[::2], words[1::2], strict=False):
        if value.isdecimal():
            yield name, int(value)

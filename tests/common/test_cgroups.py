"""Control groups as the kernel shows them, of both versions, in faked trees."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.machine import Cgroups

MADE = Callable[..., Cgroups]


@pytest.fixture
def groups_of(tmp_path: Path) -> MADE:
    """The groups of a process, from its lines in /proc, the mounts as (kind, options, root, place)
    and the files of the groups, by their place."""

    def make(
        lines: list[str], mounts: list[tuple[str, str, str, str]], files: dict[str, str]
    ) -> Cgroups:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "cgroup").write_text("\n".join(lines) + "\n")
        (tmp_path / "mountinfo").write_text(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
            + "".join(
                f"32 31 0:29 {root} {tmp_path / place} rw shared:5 - {kind} {kind} {options}\n"
                for kind, options, root, place in mounts
            )
        )
        return Cgroups.of(tmp_path)

    return make


def second(groups_of: MADE, own: str, **files: str) -> Cgroups:
    """Of version 2; files are named GROUP__FILE, with _ for a dot; own group by its path."""
    named = {f"v2/{name.replace('__', '/').replace('_', '.')}": t for name, t in files.items()}
    return groups_of([f"0::{own}"], [("cgroup2", "rw", "/", "v2")], named)


@pytest.mark.parametrize(
    ("own", "around", "root", "quota"),
    [
        ("150000 100000", "max 100000", "max 100000", 1.5),
        ("max 100000", "50000 100000", "max 100000", 0.5),
        ("400000 100000", "300000 100000", "800000 200000", 3.0),
        ("max 100000", "max 100000", "max 100000", None),
        ("max", "", "nonsense words", None),
    ],
)
def test_the_tightest_quota_of_the_group_and_those_around_it(
    groups_of: MADE, own: str, around: str, root: str, quota: float | None
) -> None:
    files = {"v2/jobs/one/cpu.max": own, "v2/jobs/cpu.max": around, "v2/cpu.max": root}
    groups = groups_of(["0::/jobs/one"], [("cgroup2", "rw", "/", "v2")], files)
    assert groups.cpu_quota == quota


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", None), ("250000", "100000", 2.5), ("50000", "100000", 0.5)],
)
def test_version_1_and_a_second_version_without_controllers_beside_it(
    groups_of: MADE, quota: str, period: str, expected: float | None
) -> None:
    groups = groups_of(
        ["5:cpuset:/other", "4:memory:/", "1:cpu,cpuacct:/job", "0::/user"],
        [
            ("cgroup2", "rw", "/", "unified"),
            ("cgroup", "rw,cpuset", "/", "cpuset"),
            ("cgroup", "rw,cpu,cpuacct", "/", "cpu"),
        ],
        {
            "unified/user/cgroup.procs": "",
            "cpu/job/cpu.cfs_quota_us": quota,
            "cpu/job/cpu.cfs_period_us": period,
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert groups.cpu_quota == expected


@pytest.mark.parametrize("root", ["/docker/ab", "/", "/../.."])
def test_a_container_that_is_told_its_outer_name(groups_of: MADE, root: str) -> None:
    """Its own group is what is mounted, under whatever name."""
    files = {"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "1000"}
    mounts = [("cgroup", "rw,memory", root, "memory")]
    assert groups_of(["4:memory:/docker/ab"], mounts, files).memory_left == 2000


def test_files_that_are_not_in_use_are_free(groups_of: MADE) -> None:
    groups = second(
        groups_of,
        "/job",
        job__memory_max="5000",
        job__memory_current="4000",
        job__memory_stat="anon 1500\nactive_file 1000\ninactive_file 1500\n",
    )
    assert (groups.memory_left, groups.memory_limit) == (2500, 5000)


def test_memory_is_bound_by_the_groups_around_and_by_what_throttles(groups_of: MADE) -> None:
    files = {
        "job__memory_max": "max",
        "job__memory_high": "6000",
        "job__memory_current": "1000",
        "memory_max": "9000",
        "memory_current": "8000",
    }
    assert second(groups_of, "/job", **files).memory_left == 1000
    assert second(groups_of, "/job", **files, memory_stat="inactive_file 7000").memory_left == 5000


def test_more_in_use_than_is_let_leaves_nothing(groups_of: MADE) -> None:
    assert second(groups_of, "/", memory_max="1000", memory_current="1200").memory_left == 0


def test_version_1_without_a_limit_and_with_one_around_it(groups_of: MADE) -> None:
    files = {
        "memory/job/memory.limit_in_bytes": "9223372036854771712",
        "memory/job/memory.usage_in_bytes": "500",
    }
    made = ["4:memory:/job"], [("cgroup", "rw,memory", "/", "memory")]
    assert groups_of(*made, files).memory_left is None
    files |= {
        "memory/memory.limit_in_bytes": "4000",
        "memory/memory.usage_in_bytes": "3000",
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
    }
    assert groups_of(*made, files).memory_left == 2000


def test_what_the_kernel_killed_for_memory_is_counted(groups_of: MADE, tmp_path: Path) -> None:
    system = tmp_path / "vmstat"
    system.write_text("nr_free_pages 7\noom_kill 11\n")
    events = "low 0\nhigh 4\nmax 9\noom 3\noom_kill 2\n"
    assert second(groups_of, "/job", job__memory_events=events).memory_kills(system) == 2
    first = groups_of(
        ["4:memory:/job"],
        [("cgroup", "rw,memory", "/", "memory")],
        {"memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"},
    )
    assert first.memory_kills(system) == 5
    assert Cgroups().memory_kills(system) == 11, "no group says it, so the machine does"
    assert Cgroups().memory_kills(tmp_path / "none") == 0


def test_where_there_are_no_groups_nothing_is_bound(tmp_path: Path) -> None:
    groups = Cgroups.of(tmp_path / "none")
    assert (groups.cpu_quota, groups.memory_left, groups.memory_limit) == (None, None, None)

"""A container's memory is what its control groups allow, of both versions, nested or not."""

import pytest

from mvfa import cgroups, memory

MACHINE = 2**40
CASES = {  # lines of /proc/self/cgroup, files below /sys/fs/cgroup, limit and what is left
    "2, nested: the outer is smaller": (
        "0::/pod/box\n",
        {
            "pod/box/memory.max": "max",
            "pod/box/memory.current": "10",
            "pod/memory.max": "1000",
            "pod/memory.current": "700",
            "pod/memory.stat": "anon 400\ninactive_file 200\nactive_file 100\n",
        },
        (1000, 500),
    ),
    "2, in a name space of its own": (
        "0::/\n",
        {"memory.max": "1000", "memory.current": "300"},
        (1000, 700),
    ),
    "1, the path is the host's": (
        "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        {
            "memory/memory.limit_in_bytes": "2000",
            "memory/memory.usage_in_bytes": "1500",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 250\n",
        },
        (2000, 750),
    ),
    "1, no limit": (
        "4:memory:/user\n",
        {"memory/user/memory.limit_in_bytes": str(2**63 - 4096)},
        (MACHINE, MACHINE),
    ),
    "more is used than allowed": (
        "0::/../..\n",
        {"memory.max": "1000", "memory.current": "1200"},
        (1000, 0),
    ),
    "none": ("", {}, (MACHINE, MACHINE)),
    "nonsense": ("x\n0::/a\n", {"a/memory.max": "many"}, (MACHINE, MACHINE)),
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a function that writes the files of a case."""

    def make(table: str, files: dict[str, str]) -> None:
        (tmp_path / "table").write_text(table)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(cgroups, "TABLE", tmp_path / "table")
        monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "mount")

    return make


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_limits_are_those_of_all_groups(made, case):
    table, files, expected = case
    made(table, files)
    assert (cgroups.limited(MACHINE), cgroups.left(MACHINE)) == expected


def test_the_program_sees_them(made):
    before = memory.installed_memory()
    made("0::/\n", {"memory.max": "100000000", "memory.current": "40000000"})
    assert memory.installed_memory() == 100_000_000 < before
    assert memory.available_memory() == 60_000_000


def test_a_system_without_groups_has_no_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "TABLE", tmp_path / "missing")
    assert cgroups.limited(MACHINE) == cgroups.left(MACHINE) == MACHINE

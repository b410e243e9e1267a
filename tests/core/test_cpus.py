"""CPUs come from the cgroup first, and slots never get more threads than there are CPUs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everwarm_core.cpus import (
    available_cpus,
    effective_cpus,
    own_cgroups,
    quota_v1,
    quota_v2,
    threads_per_slot,
)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("150000 100000\n", 1.5),
        ("max 100000\n", None),
        ("", None),
        ("x y", None),
        ("0 100000", None),
        ("5 0", None),
    ],
)
def test_quota_v2_reads_cpu_max(text: str, cpus: float | None) -> None:
    assert quota_v2(text) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"), [("200000\n", "100000\n", 2.0), ("-1\n", "100000\n", None), ("", "", None)]
)
def test_quota_v1_reads_quota_and_period(quota: str, period: str, cpus: float | None) -> None:
    assert quota_v1(quota, period) == cpus


def test_own_cgroups_reads_both_versions() -> None:
    assert own_cgroups("0::/pod/a\n") == {"": "/pod/a"}
    assert own_cgroups("4:cpu,cpuacct:/x\n1:name=systemd:/y\n") == {
        "cpu": "/x",
        "cpuacct": "/x",
        "name=systemd": "/y",
    }


def test_available_cpus_takes_the_tightest_quota_between_the_process_and_the_root(tmp_path: Path) -> None:
    (tmp_path / "pod" / "container").mkdir(parents=True)
    (tmp_path / "pod" / "container" / "cpu.max").write_text("max 100000")
    (tmp_path / "pod" / "cpu.max").write_text("50000 100000")
    (tmp_path / "cgroup").write_text("0::/pod/container\n")
    assert available_cpus(root=tmp_path, proc_cgroup=tmp_path / "cgroup") == 0.5


def test_available_cpus_finds_the_quota_inside_a_cgroup_namespace(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    (tmp_path / "cgroup").write_text("0::/../../elsewhere\n")
    assert available_cpus(root=tmp_path, proc_cgroup=tmp_path / "cgroup") == 0.5


def test_available_cpus_reads_version_one(tmp_path: Path) -> None:
    (tmp_path / "cpu" / "docker").mkdir(parents=True)
    (tmp_path / "cpu" / "docker" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "docker" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/docker\n")
    assert available_cpus(root=tmp_path, proc_cgroup=tmp_path / "cgroup") == 0.5


def test_available_cpus_is_at_least_something_where_there_is_no_cgroup(tmp_path: Path) -> None:
    assert available_cpus(root=tmp_path / "none", proc_cgroup=tmp_path / "none") >= 1


@given(
    quota=st.none() | st.floats(0.01, 512),
    affinity=st.none() | st.integers(1, 512),
    count=st.none() | st.integers(1, 512),
)
def test_effective_cpus_never_exceeds_any_limit(
    quota: float | None, affinity: int | None, count: int | None
) -> None:
    cpus = effective_cpus(quota=quota, affinity=affinity, count=count)
    assert cpus > 0
    assert all(cpus <= max(limit, 0.1) for limit in (quota, affinity, count) if limit is not None)


@given(cpus=st.floats(0.1, 512), slots=st.integers(1, 64))
def test_threads_per_slot_is_one_or_fits_the_cpus(cpus: float, slots: int) -> None:
    threads = threads_per_slot(cpus, slots)
    assert threads == 1 or threads * slots <= cpus

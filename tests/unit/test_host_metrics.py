"""What the host metrics write: units from a folder like the kernel's, pools from rows like PgBouncer's."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from roles.monitoring.files import host_metrics
from roles.monitoring.files.host_metrics import METRICS, Sample, pools, text, units, write

MEGA = 1 << 20


def cgroup(root: Path, unit: str, *, limit: str = "max") -> Path:
    (root / "cgroup.controllers").touch()
    folder = root / "system.slice" / unit
    folder.mkdir(parents=True)
    (folder / "memory.current").write_text(f"{100 * MEGA}\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.stat").write_text(
        f"anon 1\ninactive_file {20 * MEGA}\nactive_file {10 * MEGA}\nslab_reclaimable 0\n"
    )
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nthrottled_usec 500000\n")
    return folder


@pytest.mark.requirement("MO-02")
def test_a_unit_is_charged_for_what_it_cannot_give_back(tmp_path: Path) -> None:
    cgroup(tmp_path, "system-postgresql.slice/postgresql@17-telegram.service", limit=str(2048 * MEGA))
    cgroup(tmp_path, "ssh.service")
    found = {(sample.name, sample.labels["unit"]): sample.value for sample in units(tmp_path)}
    database = "postgresql@17-telegram.service"
    assert found["telegram_unit_memory_bytes", database] == 70 * MEGA
    assert found["telegram_unit_memory_limit_bytes", database] == 2048 * MEGA
    assert found["telegram_unit_cpu_seconds_total", database] == 2.5
    assert found["telegram_unit_cpu_throttled_seconds_total", database] == 0.5
    assert ("telegram_unit_memory_limit_bytes", "ssh.service") not in found


def test_version_1_of_control_groups_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    for unit, limit in (("prometheus.service", 1024 * MEGA), ("ssh.service", 9223372036854771712)):
        memory, cpu = (tmp_path / controller / "system.slice" / unit for controller in ("memory", "cpu"))
        memory.mkdir(parents=True)
        cpu.mkdir(parents=True)
        (memory / "memory.usage_in_bytes").write_text(f"{100 * MEGA}\n")
        (memory / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (memory / "memory.stat").write_text(
            f"inactive_file 1\ntotal_inactive_file {20 * MEGA}\ntotal_active_file {10 * MEGA}\n"
        )
        (cpu / "cpu.stat").write_text("nr_periods 4134\nnr_throttled 6\nthrottled_time 500000000\n")
    found = {(sample.name, sample.labels["unit"]): sample.value for sample in units(tmp_path)}
    assert found == {
        ("telegram_unit_memory_bytes", "prometheus.service"): 70 * MEGA,
        ("telegram_unit_memory_limit_bytes", "prometheus.service"): 1024 * MEGA,
        ("telegram_unit_memory_bytes", "ssh.service"): 70 * MEGA,
        ("telegram_unit_cpu_throttled_seconds_total", "prometheus.service"): 0.5,
        ("telegram_unit_cpu_throttled_seconds_total", "ssh.service"): 0.5,
    }


def test_what_the_kernel_does_not_count_is_left_out(tmp_path: Path) -> None:
    folder = cgroup(tmp_path, "a.service")
    (folder / "memory.stat").unlink()
    assert {sample.name for sample in units(tmp_path)} == {
        "telegram_unit_cpu_seconds_total",
        "telegram_unit_cpu_throttled_seconds_total",
    }


@pytest.mark.requirement("PB-03")
def test_pools_are_counted_by_database_and_user_without_the_console() -> None:
    row = {"database": "telegram_gateway", "user": "telegram_api", "cl_active": 3, "cl_waiting": 12, "maxwait": 2}
    row |= {"sv_active": 3, "sv_idle": 1}
    found = list(pools([row, {"database": "pgbouncer"}]))
    labels = {"database": "telegram_gateway", "user": "telegram_api"}
    assert Sample("pgbouncer_up", {}, 1) in found
    assert Sample("pgbouncer_pools_client_waiting_connections", labels, 12.0) in found
    assert len(found) == 6


def test_a_pgbouncer_that_is_away_is_told_as_such() -> None:
    assert host_metrics.pgbouncer("127.0.0.1", 1, "x") == [Sample("pgbouncer_up", {}, 0)]


def test_the_file_is_what_prometheus_reads(tmp_path: Path) -> None:
    samples = [Sample(name, {"unit": 'a"\\\n.service'}, 1234567890) for name in METRICS]
    path = tmp_path / "telegram_host.prom"
    write(path, text(samples * 2))
    families = list(text_string_to_metric_families(path.read_text()))
    assert len(families) == len(METRICS)
    for family in families:
        assert family.type == METRICS[family.samples[0].name].kind
        assert family.documentation == METRICS[family.samples[0].name].text
        assert [(sample.labels["unit"], sample.value) for sample in family.samples] == [
            ('a"\\\n.service', 1234567890)
        ] * 2
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

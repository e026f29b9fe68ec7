"""The database's maintenance as the timer's unit calls it and as `health` sees it, on a real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from plugins.module_utils.health import Finding
from plugins.module_utils.health_drivers import DRIVERS
from tests.integration import servers
from tests.integration.servers import DATABASE, ROOT, Postgres

UNIT = ROOT / "roles" / "timescaledb" / "templates" / "telegram-database-maintenance.service.j2"
HOUR = 60


@pytest.fixture
def server() -> Iterator[Postgres]:
    with servers.postgres() as running:
        yield running


def maintain(server: Postgres) -> subprocess.CompletedProcess[str]:
    """Run the command of the unit, as the role of the unit."""
    (command,) = re.findall(r'--command="([^"]+)"', UNIT.read_text())
    (role,) = re.findall(r"--username=(\w+)", UNIT.read_text())
    url = f"postgresql://{role}:{server.password}@127.0.0.1:{server.port}/{DATABASE}"
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={command}"]
    return subprocess.run(["psql", *options, url], capture_output=True, text=True, check=False, timeout=120)


def health(server: Postgres, minutes: float = HOUR, kind: str = "maintenance") -> Finding:
    """What `stack_health` finds, as the role that the playbook gives it."""
    check: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "user": "telegram_exporter",
        "password": server.password,
        "database": DATABASE,
        "timeout": 5.0,
        "warn": minutes,
    }
    return DRIVERS[kind](check)


@pytest.mark.requirement("DB-03")
def test_health_knows_each_job_before_and_after_its_first_run(server: Postgres) -> None:
    with server.connect() as connection:
        jobs = [row[0] for row in connection.execute("SELECT unnest(telegram.maintenance_jobs()) ORDER BY 1")]
    assert {"retention", "rollups", "partitions"} <= set(jobs)
    before = health(server)
    assert (before.status, before.value) == ("ok", "; ".join(f"{job} has not run yet" for job in jobs))

    assert maintain(server).returncode == 0
    after = health(server)
    assert after.status == "ok"
    assert re.sub(r"\d+", "0", after.value) == "; ".join(f"{job} ok 0 s ago, backlog 0" for job in jobs)
    assert health(server, minutes=0).status == "degraded", "every age is too old for no time at all"


@pytest.mark.requirement("DB-03")
def test_a_job_that_fails_fails_the_command_and_degrades_health_until_it_succeeds(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("ALTER FUNCTION telegram.maintain_rollups() RENAME TO maintain_rollups_away")
        failed = maintain(server)
        assert failed.returncode != 0
        assert "rollups" in failed.stderr
        found = health(server)
        assert found.status == "degraded"
        assert found.value.startswith(
            "rollups failed, last 0 s ago: function telegram.maintain_rollups() does not exist"
        )
        assert "systemctl start telegram-database-maintenance.service" in found.hint
        others = connection.execute("SELECT count(*) FROM telegram.maintenance_runs WHERE ok").fetchone()
        assert others and others[0] >= 2, "the other jobs did their work"

        connection.execute("ALTER FUNCTION telegram.maintain_rollups_away() RENAME TO maintain_rollups")
        assert maintain(server).returncode == 0
    assert health(server).status == "ok"


def test_jobs_that_stopped_running_are_degraded_once_the_server_is_up_for_long(server: Postgres) -> None:
    assert maintain(server).returncode == 0
    with server.connect() as connection:
        connection.execute("UPDATE telegram.maintenance_runs SET finished_at = finished_at - interval '1 hour'")
    found = health(server, minutes=0.001)
    assert found.status == "degraded"
    assert "retention ok 60 min ago" in found.value
    assert "list-timers" in found.hint


def test_health_tells_of_failed_messages_until_they_are_replayed_and_the_database_is_well(
    server: Postgres,
) -> None:
    assert health(server, kind="failures") == Finding("ok", "0 failed messages to replay")
    with server.connect() as connection:
        connection.execute(
            "INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)"
            " VALUES ('signals', -100, 1, 1, 'handler failed', '{}', 5)"
        )
        found = health(server, kind="failures")
        assert (found.status, found.note) == ("ok", "1 failed message to replay: the console's page Failures says why")
        connection.execute("UPDATE telegram.failures SET replayed_at = now()")
    assert health(server, kind="failures").note == ""

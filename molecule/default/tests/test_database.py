"""The database runs with the settings of its budget, and maintains itself by a unit that may do nothing else."""

from __future__ import annotations

import pytest
from probe import sql
from testinfra.host import Host

UNIT = "telegram-database-maintenance"
CONNECT = "psql -X -h /run/postgresql -p 5434 -Atw -c 'SELECT current_user'"


@pytest.mark.requirement("DB-01")
def test_the_server_itself_says_that_it_is_tuned_for_its_budget(host: Host) -> None:
    names = ("shared_buffers", "effective_cache_size", "max_connections", "fsync", "synchronous_commit")
    wanted = ["512MB", "1536MB", "100", "on", "on"]
    assert [sql(host, f"SHOW {name}")[0][0] for name in names] == wanted
    assert "pg_stat_statements" in sql(host, "SHOW shared_preload_libraries")[0][0].split(",")
    assert int(sql(host, "SELECT count(*) FROM pg_stat_statements")[0][0]) > 0


@pytest.mark.requirement("DB-03")
def test_maintenance_runs_by_its_timer_and_every_job_has_ended_well(host: Host) -> None:
    assert host.check_output(f"systemctl is-active {UNIT}.timer") == "active"
    assert host.check_output(f"systemctl is-enabled {UNIT}.timer") == "enabled"
    assert host.check_output(f"systemctl show {UNIT}.service -p Result --value") == "success"
    own_jobs = sql(host, "SELECT job, last_ok FROM telegram.maintenance_status WHERE job NOT LIKE '%:%'")
    assert {"retention", "rollups"} <= {job for job, _ in own_jobs}
    assert {ok for _, ok in own_jobs} == {"t"}


@pytest.mark.requirement("DB-02")
def test_the_maintenance_user_becomes_the_owner_and_nobody_else(host: Host) -> None:
    user = host.check_output(f"systemctl show {UNIT}.service -p User --value")
    assert user == "telegram-maintenance"
    become = f"runuser -u {user} -- {CONNECT} -d telegram_gateway -U"
    assert host.check_output(f"{become} telegram_owner") == "telegram_owner"
    for role in ("postgres", "telegram_api", "telegram_ingest"):
        assert host.run(f"{become} {role}").failed, role
    assert host.run(f"runuser -u {user} -- {CONNECT} -d postgres -U telegram_owner").failed

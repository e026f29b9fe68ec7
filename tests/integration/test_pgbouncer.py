"""PgBouncer with the role's own files before a real PostgreSQL: its promises, and the modules that ask and steer it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from plugins.module_utils.health_drivers import DRIVERS
from tests.integration import modules, poolers, servers
from tests.integration.modules import failure, success
from tests.integration.poolers import Pooler
from tests.integration.servers import DATABASE, wait_until

CLIENTS = 100
GATE = 4711


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        yield running


@pytest.fixture(scope="module")
def shared(server: servers.Postgres) -> Iterator[Pooler]:
    with poolers.pgbouncer(server) as running:
        yield running


@pytest.fixture
def pooler(shared: Pooler) -> Iterator[Pooler]:
    """The pooler with nobody connected, neither paused nor disabled."""
    yield shared
    for database in ask(shared)["databases"]:
        if database["paused"]:
            shared.console(f"RESUME {database['name']}")
        shared.console(f"ENABLE {database['name']}")


def ask(pooler: Pooler, **options: Any) -> dict[str, Any]:
    """What `pgbouncer_info` says to the statistics user."""
    return success(modules.run("pgbouncer_info", {**pooler.stats_login, **options}))


def steer(pooler: Pooler, action: str, check: bool = False, **options: Any) -> dict[str, Any]:
    """What `pgbouncer_admin` says."""
    return modules.run("pgbouncer_admin", {**pooler.login, "action": action, **options}, check=check)


@contextlib.contextmanager
def waiting_clients(server: servers.Postgres, pooler: Pooler) -> Iterator[list[Any]]:
    """100 clients, each in a transaction that waits for this block's end; gives the list of what they will get."""
    got: list[Any] = []
    connected = threading.Barrier(CLIENTS + 1)

    def client(_number: int) -> Any:
        with pooler.connect() as connection:
            connected.wait(timeout=60)
            with connection.transaction():
                connection.execute(f"SELECT pg_advisory_xact_lock_shared({GATE})")
                row = connection.execute("SELECT pg_backend_pid()").fetchone()
                return row[0] if row else None

    with ThreadPoolExecutor(CLIENTS) as threads, server.connect() as gate:
        gate.execute(f"SELECT pg_advisory_lock({GATE})")
        try:
            results = [threads.submit(client, number) for number in range(CLIENTS)]
            connected.wait(timeout=60)  # an open console would count as one of the hundred
            wait_until(lambda: sum(row["cl_active"] + row["cl_waiting"] for row in pools(pooler)) == CLIENTS)
            yield got
        finally:
            gate.execute(f"SELECT pg_advisory_unlock({GATE})")
        got += [result.result(timeout=60) for result in results]


def pools(pooler: Pooler) -> list[dict[str, Any]]:
    """Pools of the API's role."""
    return [row for row in pooler.console("SHOW POOLS") if row["user"] == "telegram_api"]


@pytest.mark.requirement("PB-01")
def test_the_role_s_settings_are_what_pgbouncer_runs_with(pooler: Pooler) -> None:
    config = ask(pooler)["config"]
    wanted = {
        "pool_mode": "transaction",
        "default_pool_size": "20",
        "max_client_conn": "100",
        "server_idle_timeout": "600",
        "server_lifetime": "3600",
        "query_wait_timeout": "120",
        "auth_type": "scram-sha-256",
        "auth_query": "SELECT username, password FROM pgbouncer.user_lookup($1)",
    }
    assert {name: config[name] for name in wanted} == wanted


@pytest.mark.requirement("PB-01")
def test_clients_log_in_with_their_database_password_which_the_pooler_does_not_keep(pooler: Pooler) -> None:
    kept = (pooler.folder / "userlist.txt").read_text()
    assert "telegram_api" not in kept and "SCRAM" not in kept
    with pooler.connect("telegram_api") as client:
        assert client.execute("SELECT current_user").fetchone() == ("telegram_api",)
    pooler.password, right = poolers.made_up_password(), pooler.password
    try:
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            pooler.connect("telegram_api")
    finally:
        pooler.password = right
    with pytest.raises(psycopg.OperationalError):
        pooler.connect("postgres")  # a superuser is never looked up


@pytest.mark.requirement("PB-01")
def test_a_transaction_ends_a_client_s_hold_on_its_connection(pooler: Pooler) -> None:
    with pooler.connect() as one, pooler.connect() as two:
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, two, one, two)}
    assert len(pids) == 1


@pytest.mark.requirement("PB-02")
def test_a_hundred_clients_at_once_are_all_served_by_twenty_connections(
    server: servers.Postgres, pooler: Pooler
) -> None:
    with waiting_clients(server, pooler) as got:
        wait_until(lambda: pools(pooler)[0]["cl_waiting"] == CLIENTS - 20)
        found = ask(pooler)
        assert found["waiting"] == CLIENTS - 20
        assert found["longest_wait"] > 0
        mine = [row for row in found["servers"] if row["user"] == "telegram_api"]
        assert [(row["state"], row["count"]) for row in mine] == [("active", 20)]
    assert len(got) == CLIENTS
    assert len(set(got)) <= 20
    assert ask(pooler)["waiting"] == 0


@pytest.mark.requirement("PB-02")
def test_a_saturated_pool_is_degraded_in_health_and_says_what_to_do(server: servers.Postgres, pooler: Pooler) -> None:
    check = {
        "host": "127.0.0.1",
        "port": pooler.port,
        "user": "pgbouncer_stats",
        "password": pooler.password,
        "database": "pgbouncer",
        "timeout": 5.0,
        "measures": "clients waiting",
        "warn": 10,
    }
    assert DRIVERS["pgbouncer"](check).status == "ok"
    with waiting_clients(server, pooler):
        wait_until(lambda: pools(pooler)[0]["cl_waiting"] == CLIENTS - 20)
        found = DRIVERS["pgbouncer"](check)
    assert (found.status, found.value) == ("degraded", "clients waiting 80")
    assert "SHOW POOLS" in found.hint


@pytest.mark.requirement("PB-02")
def test_a_restart_of_the_database_is_survived_by_pooler_and_clients(server: servers.Postgres, pooler: Pooler) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.connect()) for _ in range(10)]
        for client in clients:
            client.execute("SELECT 1")
        server.stop()
        server.start()
        for client in clients:  # the same connections go on
            assert client.execute("SELECT 2").fetchone() == (2,)
        assert pooler.process.poll() is None
        with pooler.connect() as another:
            assert another.execute("SELECT 3").fetchone() == (3,)


@pytest.mark.requirement("PB-02")
def test_a_statement_sent_while_the_database_is_paused_for_a_restart_is_served_after_it(
    server: servers.Postgres, pooler: Pooler
) -> None:
    with pooler.connect() as client, ThreadPoolExecutor(1) as threads:
        client.execute("SELECT 1")
        assert success(steer(pooler, "pause"))["changed"]
        server.stop()
        answer = threads.submit(lambda: client.execute("SELECT 2").fetchone())
        wait_until(lambda: pools(pooler)[0]["cl_waiting"] == 1)
        server.start()
        assert not answer.done()
        assert success(steer(pooler, "resume"))["changed"]
        assert answer.result(timeout=30) == (2,)


@pytest.mark.requirement("PB-03")
def test_the_stats_user_is_told_all_and_may_change_nothing(pooler: Pooler) -> None:
    with pooler.connect() as client:
        client.execute("SELECT 1")
        found = ask(pooler)
    assert found["changed"] is False
    assert found["version"] == str(pooler.console("SHOW VERSION")[0]["version"]).split()[1]
    (database,) = found["databases"]
    assert (database["name"], database["paused"], database["disabled"]) == (DATABASE, False, False)
    (pool,) = [row for row in found["pools"] if row["user"] == "telegram_api"]
    assert (pool["database"], pool["cl_active"], pool["pool_mode"]) == (DATABASE, 1, "transaction")
    (stats,) = found["stats"]
    assert stats["database"] == DATABASE and isinstance(stats["total_query_count"], int)
    assert {"database": DATABASE, "user": "telegram_api", "state": "active", "count": 1} in found["clients"]
    assert pooler.password not in str(found)

    message = failure(modules.run("pgbouncer_admin", {**pooler.stats_login, "action": "pause"}))
    assert "admin access needed" in message and "become_user" in message
    assert not ask(pooler)["databases"][0]["paused"]


def test_the_answer_is_the_same_in_check_mode(pooler: Pooler) -> None:
    found = success(modules.run("pgbouncer_info", pooler.stats_login, check=True))
    assert found["config"] == ask(pooler)["config"]


def test_a_wrong_password_fails_and_is_not_shown(pooler: Pooler) -> None:
    wrong = poolers.made_up_password()
    message = failure(modules.run("pgbouncer_info", {**pooler.stats_login, "login_password": wrong}))
    assert f"Cannot connect to database pgbouncer at 127.0.0.1:{pooler.port} as pgbouncer_stats" in message
    assert wrong not in message


@pytest.mark.parametrize(
    ("action", "undo", "field"), [("pause", "resume", "paused"), ("disable", "enable", "disabled")]
)
def test_an_action_changes_once_and_its_opposite_undoes_it(pooler: Pooler, action: str, undo: str, field: str) -> None:
    def now() -> bool:
        return bool(ask(pooler)["databases"][0][field])

    assert success(steer(pooler, undo))["changed"] is False
    for verb, before, after in ((action, False, True), (undo, True, False)):
        predicted = success(steer(pooler, verb, check=True))
        assert now() is before, "check mode changes nothing"
        real = success(steer(pooler, verb))
        assert now() is after
        for key in ("changed", "commands"):
            assert predicted[key] == real[key], key
        assert predicted["database"][field] is real["database"][field] is after
        assert (real["diff"]["before"][field], real["diff"]["after"][field]) == (before, after)
        second = success(steer(pooler, verb))
        assert (second["changed"], second["commands"]) == (False, [])
        assert success(steer(pooler, verb, check=True))["changed"] is False


def test_a_disabled_database_turns_new_clients_away_and_keeps_the_old(pooler: Pooler) -> None:
    with pooler.connect() as client:
        client.execute("SELECT 1")
        steer(pooler, "disable")
        with pytest.raises(psycopg.OperationalError, match="disabled"):
            pooler.connect()
        assert client.execute("SELECT 2").fetchone() == (2,)


def test_a_kill_closes_everything_until_the_database_is_resumed(pooler: Pooler) -> None:
    with pooler.connect() as client:
        client.execute("SELECT 1")
        predicted = success(steer(pooler, "kill", check=True))
        assert predicted["changed"] and client.execute("SELECT 2").fetchone() == (2,)
        assert success(steer(pooler, "kill"))["database"] == {**predicted["database"], "clients": 0, "servers": 0}
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 3")
    assert success(steer(pooler, "kill"))["changed"] is False
    assert success(steer(pooler, "resume"))["changed"] is True
    with pooler.connect() as client:
        assert client.execute("SELECT 4").fetchone() == (4,)


def test_a_reconnect_replaces_the_server_connections(pooler: Pooler) -> None:
    with pooler.connect() as client:
        before = client.execute("SELECT pg_backend_pid()").fetchone()
        assert success(steer(pooler, "reconnect", check=True))["changed"]
        assert client.execute("SELECT pg_backend_pid()").fetchone() == before
        assert success(steer(pooler, "reconnect"))["changed"]
        wait_until(lambda: not pooler.console("SHOW SERVERS"))
        assert success(steer(pooler, "reconnect"))["changed"] is False
        assert client.execute("SELECT pg_backend_pid()").fetchone() != before


def test_a_pause_that_takes_too_long_is_taken_back(pooler: Pooler) -> None:
    with pooler.connect() as client, client.transaction():
        client.execute("SELECT 1")
        message = failure(steer(pooler, "pause", timeout=1))
        assert f"could not pause {DATABASE} within 1 s: 1 server connections were still in a transaction" in message
        assert not ask(pooler)["databases"][0]["paused"]
        with pooler.connect() as other:
            assert other.execute("SELECT 2").fetchone() == (2,)


def test_a_reload_changes_something_when_the_files_did(pooler: Pooler) -> None:
    file = pooler.folder / "telegram.ini"
    text = file.read_text()
    assert success(steer(pooler, "reload"))["changed"] is False
    try:
        file.write_text(text.replace("default_pool_size = 20", "default_pool_size = 7"))
        assert success(steer(pooler, "reload", check=True))["commands"] == ["RELOAD"]
        assert ask(pooler)["config"]["default_pool_size"] == "20"
        real = success(steer(pooler, "reload"))
        assert real["changed"] is True
        assert real["diff"]["before"]["default_pool_size"] == "20"
        assert real["diff"]["after"]["default_pool_size"] == "7"
    finally:
        file.write_text(text)
        assert steer(pooler, "reload")["changed"] is True


def test_an_unknown_database_is_refused_with_the_known_ones(pooler: Pooler) -> None:
    assert f"no database nowhere. It has: {DATABASE}" in failure(steer(pooler, "pause", database="nowhere"))


def test_where_no_pooler_runs_check_mode_predicts_and_a_real_run_refuses(pooler: Pooler) -> None:
    nobody: dict[str, Any] = {"login_port": servers.free_port()}
    predicted = success(steer(pooler, "pause", check=True, **nobody))
    assert predicted["changed"] and "Cannot connect" in str(predicted["warnings"])
    assert "Cannot connect to database pgbouncer" in failure(steer(pooler, "pause", **nobody))
    assert "Cannot connect" in failure(modules.run("pgbouncer_info", {**pooler.stats_login, **nobody}))

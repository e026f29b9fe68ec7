"""The schema on the native engine: who may do what, and where messages are kept."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from tests.integration import servers

MESSAGE = """
INSERT INTO telegram.messages (id, channel_id, message_id, message_date, version, source, message_type, received_at)
VALUES (gen_random_uuid(), -1001, %s, %s, 1, 'user_client', 'text', now())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        yield running


def allowed(server: servers.Postgres, role: str, statement: str) -> bool:
    with server.connect(role) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True


@pytest.mark.requirement("DB-02")
@pytest.mark.parametrize("role", ["telegram_ingest", "telegram_api", "telegram_worker", "telegram_exporter"])
def test_no_service_may_delete_or_change_the_schema(server: servers.Postgres, role: str) -> None:
    for table in ("channels", "messages", "tombstones", "processing", "signals", "failures", "settings"):
        assert not allowed(server, role, f"DELETE FROM telegram.{table}")  # noqa: S608 - names from the line above
        assert not allowed(server, role, f"TRUNCATE telegram.{table}")
    assert not allowed(server, role, "CREATE TABLE telegram.mine (a int)")
    assert not allowed(server, role, "CREATE TABLE public.mine (a int)")
    assert not allowed(server, role, "SELECT * FROM pgbouncer.user_lookup('telegram_owner')")


@pytest.mark.requirement("DB-02")
def test_each_service_may_do_what_it_does(server: servers.Postgres) -> None:
    assert allowed(server, "telegram_ingest", "UPDATE telegram.messages SET text = '' WHERE false")
    assert allowed(server, "telegram_api", "UPDATE telegram.messages SET metadata = '{}' WHERE false")
    assert not allowed(server, "telegram_api", "UPDATE telegram.messages SET text = '' WHERE false")
    assert allowed(server, "telegram_worker", "UPDATE telegram.signals SET stop = 1 WHERE false")
    assert not allowed(server, "telegram_worker", "UPDATE telegram.messages SET text = '' WHERE false")
    assert allowed(server, "telegram_exporter", "SELECT max(received_at) FROM telegram.messages")
    assert allowed(server, "telegram_exporter", "SELECT query FROM pg_stat_statements LIMIT 0") is True
    assert not allowed(server, "telegram_exporter", "SELECT text FROM telegram.messages")


@pytest.mark.requirement("PB-01")
def test_the_lookup_answers_for_services_and_never_for_superusers(server: servers.Postgres) -> None:
    with server.connect("pgbouncer_lookup") as connection:
        found = connection.execute("SELECT username, password FROM pgbouncer.user_lookup('telegram_api')").fetchall()
        assert [(name, verifier[:13]) for name, verifier in found] == [("telegram_api", "SCRAM-SHA-256")]
        assert connection.execute("SELECT * FROM pgbouncer.user_lookup('postgres')").fetchall() == []
        assert connection.execute("SELECT * FROM pgbouncer.user_lookup('nobody')").fetchall() == []


def test_a_message_of_any_date_is_kept_and_moves_when_its_month_is_made(server: servers.Postgres) -> None:
    with server.connect("telegram_ingest") as connection:
        connection.execute(MESSAGE, [1, "2015-06-01 00:00+00"])
        connection.execute(MESSAGE, [2, "2015-06-30 23:59:59+00"])
        connection.execute(MESSAGE, [3, "2015-07-01 00:00+00"])
    where = "SELECT message_id, tableoid::regclass::text FROM telegram.messages WHERE channel_id = -1001 ORDER BY 1"
    with server.connect("telegram_owner") as connection:
        default = "telegram.messages_default"
        assert connection.execute(where).fetchall() == [(1, default), (2, default), (3, default)]
        for _ in range(2):  # what exists stays
            connection.execute("CALL telegram.create_message_partitions('2015-06-15', '2015-06-15')")
            june = "telegram.messages_201506"
            assert connection.execute(where).fetchall() == [(1, june), (2, june), (3, default)]


def test_today_has_a_partition_of_its_own(server: servers.Postgres) -> None:
    with server.connect("telegram_ingest") as connection:
        connection.execute(MESSAGE, [4, "now"])
        found = connection.execute("SELECT tableoid::regclass::text FROM telegram.messages WHERE message_id = 4")
        assert [name for (name,) in found] != ["telegram.messages_default"]

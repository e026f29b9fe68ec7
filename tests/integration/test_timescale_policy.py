"""The module `timescale_policy` as Ansible runs it: on the community engine, and on an engine that has no policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration import community, modules, servers
from tests.integration.modules import failure, success
from tests.integration.servers import Postgres

POLICIES: dict[str, dict[str, Any]] = {
    "compression": {"relation": "telegram.messages", "after": "14 days"},
    "retention": {"relation": "telegram.messages", "after": "90 days", "every": "6 hours"},
    "refresh": {
        "relation": "telegram.hourly",
        "start_offset": "3 days",
        "end_offset": "1 hour",
        "every": "30 minutes",
    },
    "reorder": {"relation": "telegram.messages", "index": "messages_pkey"},
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "compression": {"after": "20 days", "segment_by": ["channel_id"], "order_by": ["message_date DESC"]},
    "retention": {"after": "60 days", "enabled": False, "max_runtime": "10 minutes"},
    "refresh": {"start_offset": "10 days", "every": "1 hour"},
    "reorder": {"index": "messages_date", "max_retries": 5, "retry_period": "1 hour"},
}
SCHEMA = """
CREATE ROLE telegram_owner LOGIN;
CREATE SCHEMA telegram AUTHORIZATION telegram_owner;
SET ROLE telegram_owner;
CREATE TABLE telegram.messages (
  channel_id bigint NOT NULL, message_id bigint NOT NULL, message_date timestamptz NOT NULL,
  PRIMARY KEY (channel_id, message_id, message_date)
);
SELECT create_hypertable('telegram.messages', by_range('message_date', INTERVAL '1 day'));
CREATE INDEX messages_date ON telegram.messages (message_date);
CREATE MATERIALIZED VIEW telegram.hourly WITH (timescaledb.continuous) AS
  SELECT time_bucket('1 hour', message_date) AS hour, channel_id, count(*) FROM telegram.messages GROUP BY 1, 2
  WITH NO DATA;
RESET ROLE
"""
STATE = """
SELECT j.job_id, j.proc_name, j.schedule_interval, j.scheduled, j.config, j.owner::text, j.max_retries, j.retry_period
FROM timescaledb_information.jobs AS j WHERE j.job_id >= 1000
UNION ALL
SELECT 0, attname, NULL, orderby_asc, to_jsonb(segmentby_column_index), hypertable_name::text,
  orderby_column_index, NULL
FROM timescaledb_information.compression_settings
ORDER BY 1, 2
"""

every_policy = pytest.mark.parametrize("policy", POLICIES)


def run(server: Postgres, policy: str, check: bool = False, **options: Any) -> dict[str, Any]:
    """The module's answer to a policy of `POLICIES` with further options."""
    arguments = {
        "login_host": "127.0.0.1",
        "login_port": server.port,
        "login_password": server.password,
        "login_db": "postgres",
        "policy": policy,
        **options,
    }
    return modules.run("timescale_policy", arguments, check=check)


def state(server: Postgres) -> list[Any]:
    """Everything that policies are made of."""
    with server.connect(database="postgres") as connection:
        return connection.execute(STATE).fetchall()


@pytest.fixture(scope="module")
def community_server() -> Iterator[Postgres]:
    reason = community.missing()
    if reason:
        pytest.skip(reason)
    with community.timescale() as running:
        with running.connect(database="postgres") as connection:
            for statement in SCHEMA.split(";"):
                connection.execute(statement.encode())
        yield running


@pytest.fixture
def server(community_server: Postgres) -> Iterator[Postgres]:
    """A hypertable and a continuous aggregate without policies, compression off."""
    yield community_server
    with community_server.connect(database="postgres") as connection:
        connection.execute("SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE job_id >= 1000")
        connection.execute("TRUNCATE telegram.messages")
        connection.execute("ALTER TABLE telegram.messages SET (timescaledb.compress = false)")
    assert state(community_server) == []


@pytest.mark.requirement("DB-03")
@every_policy
def test_a_policy_is_made_altered_and_removed(server: Postgres, policy: str) -> None:
    steps = [POLICIES[policy], {**POLICIES[policy], **OTHERWISE[policy]}, {**POLICIES[policy], "state": "absent"}]
    seen = []
    for options in steps:
        before = state(server)
        predicted = success(run(server, policy, check=True, owner="telegram_owner", **options))
        assert state(server) == before, "check mode changes nothing"
        real = success(run(server, policy, owner="telegram_owner", **options))
        after = state(server)
        assert after != before
        assert (predicted["changed"], predicted["diff"]) == (real["changed"], real["diff"])
        assert real["changed"] is True and real["engine"] == "timescale"
        assert real["diff"]["before"] != real["diff"]["after"]
        second = success(run(server, policy, owner="telegram_owner", **options))
        assert second["changed"] is False
        assert second["diff"]["before"] == second["diff"]["after"]
        assert success(run(server, policy, check=True, owner="telegram_owner", **options))["changed"] is False
        assert state(server) == after
        seen.append(after)
    made, altered, removed = ([row for row in rows if row[0]] for rows in seen)
    assert [row[0] for row in made] == [row[0] for row in altered], "the job stays, with its history"
    assert [row[5] for row in altered] == ["telegram_owner"]
    assert removed == []


@pytest.mark.requirement("DB-03")
def test_what_is_not_given_is_left_alone(server: Postgres) -> None:
    success(run(server, "retention", **POLICIES["retention"]))
    again = success(run(server, "retention", relation="telegram.messages", after="3 months"))
    assert again["changed"] is False, "90 days are three months"
    assert again["settings"]["every"] == "06:00:00"
    paused = success(run(server, "retention", relation="telegram.messages", enabled=False))
    assert paused["changed"] is True
    assert (paused["settings"]["after"], paused["settings"]["enabled"]) == ("90 days", False)


def test_a_refresh_without_offsets_covers_everything(server: Postgres) -> None:
    options: dict[str, Any] = {"relation": "telegram.hourly", "every": "1 hour"}
    assert success(run(server, "refresh", **options))["changed"] is True
    ((_, _, _, _, config, *_),) = state(server)
    assert (config["start_offset"], config["end_offset"]) == (None, None)
    assert success(run(server, "refresh", **options))["changed"] is False


@pytest.mark.requirement("DB-03")
def test_the_jobs_do_what_they_are_for(server: Postgres) -> None:
    success(run(server, "compression", **{**POLICIES["compression"], **OTHERWISE["compression"]}))
    success(run(server, "retention", **POLICIES["retention"]))
    with server.connect(database="postgres") as connection:
        connection.execute(
            "INSERT INTO telegram.messages SELECT 1, n, now() - n * interval '1 day' FROM generate_series(1, 120) AS n"
        )
        for (job,) in connection.execute("SELECT job_id FROM timescaledb_information.jobs WHERE job_id >= 1000"):
            connection.execute(f"CALL run_job({job})")
        kept = connection.execute("SELECT min(message_date) > now() - interval '92 days' FROM telegram.messages")
        assert kept.fetchone() == (True,)
        chunks = connection.execute(
            "SELECT is_compressed, max(range_end) < now() - interval '20 days' FROM timescaledb_information.chunks"
            " WHERE hypertable_name = 'messages' GROUP BY 1"
        )
        assert dict(chunks.fetchall()) == {True: True, False: False}


@pytest.mark.parametrize(
    ("policy", "options", "words"),
    [
        ("compression", {}, "has no compression policy yet, and a new one needs after"),
        ("retention", {"after": "soon"}, "after: 'soon' is no interval"),
        ("retention", {"after": "1 day", "index": "x"}, "index: without meaning for policy retention"),
        ("reorder", {"index": "nowhere"}, "was left as it was"),
        ("retention", {"after": "1 day", "relation": "telegram.nowhere"}, 'relation "telegram.nowhere" does not exist'),
        ("compression", {"after": "1 day", "segment_by": ["nowhere"]}, "nowhere"),
        ("retention", {"after": "1 day", "segment_by": ["a"]}, "segment_by: without meaning for policy retention"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    server: Postgres, policy: str, options: dict[str, Any], words: str
) -> None:
    message = failure(run(server, policy, **{"relation": "telegram.messages", **options}))
    assert words in message
    assert state(server) == []


@pytest.fixture(scope="module")
def native_server() -> Iterator[Postgres]:
    with servers.postgres() as running:
        yield running


@every_policy
def test_an_engine_without_policies_is_named_and_left_alone(native_server: Postgres, policy: str) -> None:
    for state_wanted in ("present", "absent"):
        answer = success(run(native_server, policy, **POLICIES[policy], state=state_wanted))
        assert (answer["changed"], answer["skipped"], answer["engine"]) == (False, True, "native")
        assert f"Engine native has no {policy} policies" in answer["msg"]


def test_where_nothing_serves_check_mode_predicts_and_a_real_run_refuses(native_server: Postgres) -> None:
    nobody = Postgres(servers.free_port(), "unused")
    assert success(run(nobody, "retention", check=True, **POLICIES["retention"]))["changed"] is True
    assert success(run(nobody, "retention", check=True, relation="a.b", state="absent"))["changed"] is False
    assert "Cannot connect to database postgres" in failure(run(nobody, "retention", **POLICIES["retention"]))

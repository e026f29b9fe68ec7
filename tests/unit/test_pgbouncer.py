"""What the console's answers mean, and which actions would change anything: no PgBouncer."""

from __future__ import annotations

from typing import Any

import pytest
from plugins.module_utils.pgbouncer import (
    PgbouncerError,
    counted,
    databases,
    differences,
    find,
    needed,
    of_pools,
    quoted,
    version,
)

STORE = {"name": "store", "paused": 0, "disabled": 0}
CONSOLE = {"name": "pgbouncer", "paused": 0, "disabled": 0}


def connection(database: str = "store", user: str = "api", state: str = "active", close_needed: int = 0) -> Any:
    return {"database": database, "user": user, "state": state, "close_needed": close_needed}


def test_the_version_is_a_number() -> None:
    assert version([{"version": "PgBouncer 1.24.1"}]) == "1.24.1"


def test_the_console_is_no_database_and_no_pool() -> None:
    assert databases([CONSOLE, STORE]) == [{"name": "store", "paused": False, "disabled": False}]
    assert of_pools([connection("pgbouncer"), connection()]) == [connection()]


def test_connections_are_counted_by_database_user_and_state() -> None:
    rows = [connection(), connection(state="idle"), connection(), connection("pgbouncer"), connection(user="worker")]
    assert [(row["user"], row["state"], row["count"]) for row in counted(rows)] == [
        ("api", "active", 2),
        ("api", "idle", 1),
        ("worker", "active", 1),
    ]


def test_an_unknown_database_is_named_with_those_that_there_are() -> None:
    assert find([STORE], "store") == STORE
    with pytest.raises(PgbouncerError, match=r"no database stroe\. It has: store"):
        find([STORE], "stroe")


def test_a_name_cannot_leave_its_quotes() -> None:
    assert quoted('a"; SHUTDOWN') == '"a""; SHUTDOWN"'


@pytest.mark.parametrize(
    ("action", "database", "expected"),
    [
        ("pause", {}, True),
        ("pause", {"paused": True}, False),
        ("resume", {}, False),
        ("resume", {"paused": True}, True),
        ("disable", {}, True),
        ("disable", {"disabled": True}, False),
        ("enable", {}, False),
        ("enable", {"disabled": True}, True),
        ("kill", {}, True),
        ("kill", {"paused": True}, False),
    ],
)
def test_what_is_so_already_needs_nothing(action: str, database: dict[str, bool], expected: bool) -> None:
    row = {"name": "store", "paused": False, "disabled": False, **database}
    others = [connection("other")]
    assert needed(action, row, others, others) is expected


def test_a_kill_is_needed_where_anything_is_connected() -> None:
    paused = {"name": "store", "paused": True, "disabled": False}
    assert needed("kill", paused, [connection()], [])
    assert needed("kill", paused, [], [connection()])


def test_a_reconnect_is_needed_where_a_connection_would_stay() -> None:
    row = {"name": "store", "paused": False, "disabled": False}
    assert needed("reconnect", row, [], [connection(close_needed=1), connection()])
    assert not needed("reconnect", row, [connection()], [connection(close_needed=1), connection("other")])


def test_a_diff_holds_only_what_differs() -> None:
    assert differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}) == ({"b": 2, "c": 3}, {"b": 4, "d": 5})

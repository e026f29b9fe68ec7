"""The short form of the fault suite: one injection for each of the rows that break the most, in one chain."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.faults.faults import ROWS
from tests.faults.stack import needs, stack
from tests.faults.suite import EDIT_EVERY, RECOVERY_LIMIT, Injection, Suite

pytestmark = pytest.mark.skipif(needs() is not None, reason=str(needs()))

SEED = 4


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    # Outside of pytest's folder, which the database's user cannot enter.
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ExitStack() as resources:
        Path(name).chmod(0o755)
        yield Suite(resources.enter_context(stack(Path(name))), resources)


def assert_whole(found: Injection) -> None:
    """Something was sent, edited and deleted, and all of it arrived once; what was in trouble came back."""
    assert found.sent > 300
    assert found.edited >= found.sent // EDIT_EVERY - 2 > 0
    assert found.deleted > 0
    assert (found.lost, found.duplicate_effects) == (0, 0)
    assert found.durable == found.sent
    assert found.published >= found.effects > found.sent * 0.9
    assert found.recovery < RECOVERY_LIMIT


@pytest.mark.requirement("GW-06")
def test_what_a_killed_gateway_missed_is_recovered(suite: Suite) -> None:
    found = suite.inject(ROWS["gateway:kill"], SEED)
    assert_whole(found)
    assert found.restarts == {"gateway": 1}
    assert 0 < found.recovery < 3 * 5


@pytest.mark.requirement("WK-03")
def test_a_killed_worker_repeats_no_effect(suite: Suite) -> None:
    found = suite.inject(ROWS["worker:kill"], SEED)
    assert_whole(found)
    assert found.restarts == {"worker": 1}
    assert found.recovery < 3 * 5


@pytest.mark.requirement("GW-05")
@pytest.mark.parametrize("row", ["postgresql:kill", "rabbitmq:cut", "redis:kill"])
def test_a_sink_that_was_away_catches_up(suite: Suite, row: str) -> None:
    found = suite.inject(ROWS[row], SEED)
    assert_whole(found)
    assert found.troubles["gateway"]
    assert set(found.restarts) <= {ROWS[row].component, "redis-1", "redis-2"}


def test_the_api_is_back_after_a_kill(suite: Suite) -> None:
    found = suite.inject(ROWS["api:kill"], SEED)
    assert_whole(found)
    assert 0 < found.serving["api"] < 3 * 5
    assert found.restarts == {"api": 1}


@pytest.mark.requirement("GW-06")
def test_a_full_disk_under_the_spool_is_said_and_loses_nothing(suite: Suite) -> None:
    found = suite.inject(ROWS["gateway:full"], SEED)
    assert_whole(found)
    said = " ".join(found.troubles["gateway"])
    assert "the spool cannot be written" in said
    assert "the spool takes no more events" in said
    assert not found.restarts


def test_the_books_see_what_is_missing_and_what_comes_twice(suite: Suite) -> None:
    before = suite.ledger.account()
    assert before.sent
    assert (before.lost, before.duplicate_effects) == (set(), 0)
    kept = [key for key, sent in before.sent.items() if not sent.deleted]
    gone, old, unmarked = kept[:3]
    with suite.stack.database.connect() as connection:
        for key, change in (
            (gone, "DELETE FROM telegram.messages"),
            (old, "UPDATE telegram.messages SET text = 'before the edit'"),
            (unmarked, "DELETE FROM telegram.processing"),
        ):
            done = connection.execute(f"{change} WHERE channel_id = %s AND message_id = %s", key)
            assert done.rowcount == 1
        again = connection.execute(
            "UPDATE telegram.signals SET version = version WHERE (channel_id, message_id) IN"
            " (SELECT channel_id, message_id FROM telegram.signals ORDER BY ingested_at DESC LIMIT 3)"
        )
    after = suite.ledger.account()
    assert after.not_stored == {gone, old}
    assert unmarked in after.not_effected
    assert after.lost == {gone, old, unmarked}
    assert after.duplicate_effects == again.rowcount == 3

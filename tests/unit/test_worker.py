"""The worker's decisions, without any server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telegram_stack import events
from telegram_stack.config import ConfigError, load
from telegram_stack.events import Content, Event
from telegram_stack.lingering import Linger
from telegram_stack.topology import consumer_queue, consumer_topology, publisher_topology, retry_queue
from telegram_stack.worker.broker import Delivery, Subscription
from telegram_stack.worker.config import FilterConfig, WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import Effect, UnknownHandlerError, load_handler
from telegram_stack.worker.main import check
from telegram_stack.worker.processing import Decision, decide
from telegram_stack.worker.signal_handler import SignalHandler

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SIGNAL = "ATIVO: PETR4\nCOMPRA: 28,50\nSTOP: 27,40"
EVERYTHING = Filter(FilterConfig())


def event(message_id: int = 1, text: str = SIGNAL, version: int = 10, **fields: Any) -> Event:
    """A new message of one channel."""
    given: dict[str, Any] = {
        "kind": "new",
        "channel_id": -1001,
        "message_id": message_id,
        "version": version,
        "received_at": NOW,
        "message_date": NOW,
        "content": Content(text=text),
    }
    return Event(**(given | fields))


def deliveries(*items: Event | bytes, attempt: int = 1) -> list[Delivery]:
    """The deliveries that carry `items`."""
    return [
        Delivery(tag, item if isinstance(item, bytes) else events.encode(item), attempt)
        for tag, item in enumerate(items, start=1)
    ]


def decided(*items: Event | bytes, wanted: Filter = EVERYTHING, attempt: int = 1) -> Decision:
    """What the signal handler's worker decides on `items`."""
    return decide(deliveries(*items, attempt=attempt), SignalHandler(), wanted, "signals", NOW)


class Broken:
    """A handler with a defect."""

    def handle(self, event: Event) -> Effect:
        """Fail."""
        raise ValueError(f"cannot read {event.content}")

    async def store(self, connection: object, effects: Sequence[tuple[Event, Effect]]) -> None:
        """Never reached."""
        raise AssertionError


def test_a_signal_is_published_with_its_asset() -> None:
    (mark,) = decided(event()).marks
    assert mark.status == "published"
    assert mark.metadata == {
        "processed_by": "signals",
        "processed_at": "2026-05-04T12:00:00+00:00",
        "signal_asset": "PETR4",
    }


@pytest.mark.requirement("WK-04")
def test_anything_else_is_ignored_with_the_reason() -> None:
    (mark,) = decided(event(text="Bom dia")).marks
    assert (mark.status, mark.metadata["reason"]) == ("ignored", "no asset")


def test_a_message_without_content_is_ignored() -> None:
    (mark,) = decided(event(content=None)).marks
    assert (mark.status, mark.metadata["reason"]) == ("ignored", "no text")


def test_a_delete_marks_the_message() -> None:
    (mark,) = decided(event(), events.deletion(-1001, 1, NOW)).marks
    assert (mark.status, mark.effect) == ("deleted", None)


@pytest.mark.parametrize("versions", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_the_newest_state_of_a_batch_counts(versions: tuple[int, ...]) -> None:
    decision = decided(*(event(version=version) for version in versions))
    assert [mark.event.version for mark in decision.marks] == [3]


def test_marks_are_sorted_by_key() -> None:
    decision = decided(*(event(message_id=number) for number in (3, 1, 2)), event(channel_id=-1002))
    keys = [mark.event.key for mark in decision.marks]
    assert keys == sorted(keys)
    assert len(keys) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"kind":"new"}',
        b'{"schema_version":99}',
        b"[" * 100_000,
        events.encode(event()).replace(b'"new"', b'"odd"'),
    ],
)
def test_what_is_no_event_is_poison_and_harms_no_other(body: bytes) -> None:
    decision = decided(event(1), body, event(2))
    assert [mark.event.message_id for mark in decision.marks] == [1, 2]
    assert [poison.delivery.tag for poison in decision.poison] == [2]


@pytest.mark.requirement("WK-04")
@pytest.mark.parametrize(
    ("attempt", "status"), [(1, "retrying"), (2, "retrying"), (3, "retrying"), (4, "failed"), (99, "failed")]
)
def test_a_failing_handler_is_tried_again_then_given_up(attempt: int, status: str) -> None:
    (mark,) = decide(deliveries(event(), attempt=attempt), Broken(), EVERYTHING, "signals", NOW).marks
    assert mark.status == status
    assert mark.error is not None
    assert mark.error.startswith("handler failed: ValueError")
    assert mark.metadata == {"reason": "handler failed: ValueError"}, "not processed, and no text that would be logged"


@pytest.mark.requirement("WK-05")
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FilterConfig(), None),
        (FilterConfig(channels=(-1001,)), None),
        (FilterConfig(channels=(-1002,)), "filtered by channel"),
        (FilterConfig(message_types=("text",)), None),
        (FilterConfig(message_types=("photo",)), "filtered by message type"),
        (FilterConfig(sources=("bot",)), "filtered by source"),
        (FilterConfig(text_matches="ativo"), None),
        (FilterConfig(text_matches="^venda"), "filtered: text does not match"),
        (FilterConfig(text_excludes="stop"), "filtered: text is excluded"),
        (FilterConfig(text_excludes="venda"), None),
    ],
)
def test_filters(config: FilterConfig, reason: str | None) -> None:
    (mark,) = decided(event(), wanted=Filter(config)).marks
    assert mark.status == ("published" if reason is None else "ignored")
    assert mark.metadata.get("reason") == reason


def test_linger_follows_the_load() -> None:
    linger = Linger(0.008)
    assert linger.seconds == 0
    for _ in range(100):
        linger.observe(10, 0.05)  # 200 a second
    assert 0.001 < linger.seconds < 0.002
    for _ in range(1000):
        linger.observe(20, 0.01)  # 2,000 a second
    assert linger.seconds == 0.008
    linger.observe(1, 30.0)  # calm again
    assert linger.seconds < 0.001


async def test_a_batch_waits_for_one_then_lingers_and_keeps_the_order() -> None:
    subscription = Subscription()
    waiting = asyncio.create_task(subscription.batch(3, 0.0))
    await asyncio.sleep(0)
    for delivery in deliveries(*(event(number) for number in range(1, 6))):
        subscription._take(delivery)
    assert [delivery.tag for delivery in await waiting] == [1, 2, 3]
    subscription._incoming.put_nowait(None)
    assert [delivery.tag for delivery in await subscription.batch(3, 60.0)] == [4, 5]
    assert await subscription.batch(3, 60.0) == []
    assert await subscription.batch(3, 0.0) == []


async def test_a_batch_is_cut_when_the_linger_is_over() -> None:
    subscription = Subscription()
    first, second = deliveries(event(1), event(2))
    subscription._take(first)
    asyncio.get_running_loop().call_later(0.01, subscription._take, second)
    assert len(await subscription.batch(3, 0.2)) == 2


async def test_what_has_waited_for_the_batch_before_does_not_linger_again() -> None:
    subscription = Subscription()
    first, second, third = deliveries(event(1), event(2), event(3))
    subscription._take(first)
    subscription._take(second)
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_later(0.01, subscription._take, third)
    assert [delivery.tag for delivery in await subscription.batch(3, 0.04)] == [1, 2]
    assert [delivery.tag for delivery in await subscription.batch(3, 0.0)] == [3]


def test_handlers_come_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_handler-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-handler\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[telegram_stack.handlers]\nown = {__name__}:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert isinstance(load_handler("own"), Broken)
    with pytest.raises(UnknownHandlerError, match=r'handler = "other" is not installed; installed: .*own'):
        load_handler("other")


MINIMAL = '[database]\nuser = "telegram_worker"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'mode = "push"\n{MINIMAL}', "bad value of mode: Invalid enum value 'push'"),
        (f"{MINIMAL}[cache]\nsentinel = 1\n", "unknown key cache.sentinel; known: "),
        (f'consumer = "A B"\n{MINIMAL}', "consumer name 'A B' is not usable"),
        (f'{MINIMAL}[filter]\ntext_matches = "("\n', "filter.text_matches is no regular expression"),
        (f"batch_sise = 1\n{MINIMAL}", "unknown key batch_sise"),
        ("", "missing key database"),
    ],
)
def test_a_bad_config_is_refused_in_a_sentence(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, WorkerConfig)
    assert any(problem in sentence for sentence in caught.value.problems), caught.value.problems


def test_a_handler_that_is_not_installed_is_a_problem_of_the_config(tmp_path: Path) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(f'handler = "nobody"\n{MINIMAL}')
    assert ['handler = "nobody" is not installed' in problem for problem in check(load(path, WorkerConfig))] == [True]


def test_topology_names_each_object_once() -> None:
    declared = [str(item) for item in [*publisher_topology(), *consumer_topology("signals")]]
    assert len(declared) == len(set(declared))
    assert retry_queue("signals", "10s") == f"{consumer_queue('signals')}.retry.10s"

"""Two accounts, each with a gateway of its own, before the same tables: a channel is one's, a message counts once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from tests.integration.consumers import World, consumer_cache, consumer_database, needs_servers, world
from tests.integration.gateways import KEY, Gateway, ListSink, post, ready_session, running
from tests.integration.servers import until
from tests.integration.workers import SIGNAL

from telegram_stack import events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.gateway import main
from telegram_stack.simulator import objects
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.sinks.database import FIRST, DatabaseSink
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.worker.broker import Delivery

__all__ = ["consumer_cache", "consumer_database", "world"]  # fixtures

pytestmark = [needs_servers, pytest.mark.requirement("GW-11")]

SECOND = "second"
PHONES = {FIRST: "5511999990000", SECOND: "5511999990001"}


@dataclass
class Account:
    """One account's gateway, with what it has published."""

    gateway: Gateway
    queue: ListSink
    registry: DatabaseSink
    session: SessionFile


@asynccontextmanager
async def account(telegram: Telegram, world: World, name: str, *, follow: bool = True) -> AsyncIterator[Account]:
    """The gateway of `name`; it reads the registry first, and then often, unless it shall not `follow` it."""
    folder = world.folder / f"account-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    session = SessionFile(folder / "session", KEY)
    if not session.path.exists():
        session.write(ready_session(telegram, PHONES[name]))
    password = str(world.folder / "password")
    pool = await open_pool(
        DatabaseConfig(user="telegram_ingest", password_file=password, port=world.database.port, timeout=1.0), "test"
    )
    others = [SECOND] if name == FIRST else []
    registry = DatabaseSink(pool, lambda: {}, register=True, account=name, others=others)
    queue = ListSink("queue")
    async with running(session, [registry, queue]) as gateway:
        following = None
        if follow:
            following = asyncio.create_task(main._follow_registry(registry, gateway.channels, gateway.spool))
        try:
            await gateway.complete()
            yield Account(gateway, queue, registry, session)
        finally:
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
    await registry.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_REGISTRY_SECONDS", 0.1)


def give(world: World, owners: dict[int, str]) -> None:
    """Enter channels (without mark), or give them to another account."""
    with world.database.connect() as connection:
        for channel, owner in owners.items():
            connection.execute(
                "INSERT INTO telegram.channels (channel_id, account) VALUES (%s, %s)"
                " ON CONFLICT (channel_id) DO UPDATE SET account = excluded.account",
                [marked(channel), owner],
            )


def owners(world: World) -> dict[int, str]:
    with world.database.connect() as connection:
        return dict(connection.execute("SELECT channel_id, account FROM telegram.channels").fetchall())


def stored(world: World) -> Counter[tuple[int, int]]:
    with world.database.connect() as connection:
        return Counter(connection.execute("SELECT channel_id, message_id FROM telegram.messages").fetchall())


async def taken(one: Account, *channels: int) -> None:
    """Wait until it takes these channels (without mark) and no other."""
    wanted = {marked(channel) for channel in channels}
    await until(lambda: {c for c in one.gateway.channels.known if one.gateway.channels.accepts(c)} == wanted)
    await one.gateway.complete()


async def test_each_takes_the_channels_that_are_given_to_it(telegram: Telegram, world: World) -> None:
    one, two, three = telegram.store.channels
    give(world, {one: FIRST, two: FIRST, three: SECOND})
    async with account(telegram, world, FIRST) as first, account(telegram, world, SECOND) as second:
        await taken(first, one, two)
        await taken(second, three)
        sent = post(telegram, 30)
        await until(lambda: stored(world) == Counter(sent))
        of_second = {key for key in sent if key[0] == marked(three)}
        await until(lambda: second.queue.keys() == Counter(of_second))
        await until(lambda: first.queue.keys() == Counter(sent - of_second))

        give(world, {one: SECOND})
        await taken(first, two)
        await taken(second, one, three)
        moved = post(telegram, 5, one)
        await until(lambda: moved <= set(second.queue.keys()))
        give(world, {one: "who was taken out"})
        await taken(first, one, two)
        back = post(telegram, 5, one)
        await until(lambda: back <= set(first.queue.keys()))
        assert not back & set(second.queue.keys())
        await until(lambda: stored(world) == Counter(sent | moved | back))


async def test_a_channel_that_nobody_has_entered_becomes_that_of_the_one_who_stores_it(
    telegram: Telegram, world: World
) -> None:
    one, two, three = telegram.store.channels
    async with account(telegram, world, SECOND):
        post(telegram, 3, one)
        await until(lambda: owners(world) == {marked(one): SECOND})
    async with account(telegram, world, FIRST) as first:
        await taken(first, two, three)
        post(telegram, 9)
        await until(lambda: owners(world) == {marked(one): SECOND, marked(two): FIRST, marked(three): FIRST})


async def test_one_that_ends_or_is_revoked_does_not_end_the_other(telegram: Telegram, world: World) -> None:
    one, two, three = telegram.store.channels
    give(world, {one: FIRST, two: FIRST, three: SECOND})
    async with account(telegram, world, FIRST) as first:
        async with account(telegram, world, SECOND) as second:
            await taken(second, three)
            await taken(first, one, two)
            number = telegram.store.account(PHONES[SECOND]).id
            [connection] = [c for c in telegram._connections if c.key and c.key.account_id == number]
            assert connection.key is not None
            telegram.store.kill_key(connection.key)
            connection.abort()
            await until(lambda: second.gateway.source.state == "unauthenticated", 20)
            sent = post(telegram, 30)
            of_first = {key for key in sent if key[0] != marked(three)}
            await until(lambda: first.queue.keys() == Counter(of_first))
            assert (first.gateway.source.state, first.gateway.reception.connections) == ("connected", 1)
            assert second.queue.keys() == Counter()
            second.session.write(ready_session(telegram, PHONES[SECOND]), replace=True)
            await until(lambda: second.queue.keys() == Counter(sent - of_first), 20)
        missed = post(telegram, 30)
        await until(lambda: set(first.queue.keys()) == of_first | {key for key in missed if key[0] != marked(three)})
        async with account(telegram, world, SECOND) as second:
            await until(lambda: second.queue.keys() == Counter(missed - set(first.queue.keys())), 20)
    assert stored(world) == Counter(sent | missed)


async def test_both_in_one_channel_are_one_effect(
    telegram: Telegram, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telegram gives each account another access hash of a photo, which makes no other version of the message."""
    hashes = itertools.count(1)
    monkeypatch.setattr(objects, "photo_hash", lambda _number: next(hashes))
    channel = next(iter(telegram.store.channels))
    async with (
        account(telegram, world, FIRST, follow=False) as first,
        account(telegram, world, SECOND, follow=False) as second,
    ):
        drafts = [Draft(channel, SIGNAL, has_photo=number % 2 == 0) for number in range(20)]
        sent = {(marked(channel), message.id) for message in telegram.post(drafts)}
        both = (first, second)
        await until(lambda: all(each.queue.keys() == Counter(sent) for each in both))
        numbers = sorted(key[1] for key in sent)
        telegram.edit(channel, numbers[0], SIGNAL.replace("PETR4", "VALE3"))
        telegram.delete(channel, [numbers[1]])
        await until(lambda: all(each.queue.keys("edit", "delete").total() == 2 for each in both))
    told = [[entry.event for entry in each.queue.entries] for each in both]
    pairs = list(zip(*told, strict=True))
    assert all(ours.version == theirs.version for ours, theirs in pairs if ours.kind != "delete")
    media = [(ours.content.media, theirs.content.media) for ours, theirs in pairs if ours.content and theirs.content]
    assert any(mine and yours and mine.access_hash != yours.access_hash for mine, yours in media)
    assert stored(world) == Counter(sent)

    processor = world.processor(world.pool)
    effects = 0
    for event in itertools.chain.from_iterable(pairs):
        outcomes = await processor.process([Delivery(1, events.encode(event), 1)])
        effects += sum(len(outcome.marks) for outcome in outcomes)
    assert effects == 20 + 2, "each state of a message has its effect once"
    with world.database.connect() as connection:
        signals = connection.execute("SELECT message_id, asset FROM telegram.signals ORDER BY 1").fetchall()
    assert signals == [(number, "VALE3" if number == numbers[0] else "PETR4") for number in numbers]

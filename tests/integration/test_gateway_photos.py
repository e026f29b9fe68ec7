"""Photos on demand: downloaded once, kept within a limit, and clear words when there is none."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import until

from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.photos import jpeg, photo_id
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.photos import PhotoCache, PhotoMissingError, Photos, PhotoUnavailableError
from telegram_stack.telegram.session import SessionFile

SIZE = len(jpeg(1))


def post_photos(telegram: Telegram, count: int) -> list[tuple[int, int]]:
    channel = next(iter(telegram.store.channels))
    return [(marked(m.channel_id), m.id) for m in telegram.post([Draft(channel, "a photo", True)] * count)]


def expected(telegram: Telegram, key: tuple[int, int]) -> bytes:
    channel = next(iter(telegram.store.channels))
    assert marked(channel) == key[0]
    return jpeg(photo_id(channel, key[1]))


@pytest.mark.requirement("GW-08")
async def test_a_photo_is_downloaded_once_and_kept(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], tmp_path: Path
) -> None:
    first, second = post_photos(telegram, 2)
    async with running(session, sinks) as gateway:
        await gateway.complete()
        photos = Photos(gateway.source, gateway.channels, PhotoCache(tmp_path / "photos", 10 * SIZE))
        answers = await asyncio.gather(*(photos.get(*first) for _ in range(20)))
        assert {data for data, _ in answers} == {expected(telegram, first)}
        assert telegram.counted["GetFileRequest"] == 1
        assert (tmp_path / "photos" / f"{first[0]}_{first[1]}.jpg").stat().st_mode & 0o077 == 0
        assert (await photos.get(*first))[1] == "cached"
        telegram.faults.expire = 1
        assert await photos.get(*second) == (expected(telegram, second), "downloaded")
        assert telegram.counted["GetFileRequest"] == 3
        again = Photos(gateway.source, gateway.channels, PhotoCache(tmp_path / "photos", 10 * SIZE))
        assert (await again.get(*second))[1] == "cached"
        again.forget(*second)
        assert (await again.get(*second))[1] == "downloaded"


@pytest.mark.requirement("GW-08")
async def test_what_cannot_be_given_says_why(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], tmp_path: Path
) -> None:
    [photo] = post_photos(telegram, 1)
    [text] = post(telegram, 1, next(iter(telegram.store.channels)))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        photos = Photos(gateway.source, gateway.channels, PhotoCache(tmp_path / "photos", 0))
        for missing in (text, (text[0], 999), (-100999, 1)):
            with pytest.raises(PhotoMissingError):
                await photos.get(*missing)
        assert telegram.counted["GetFileRequest"] == 0
        telegram.faults.flood("getFile", 30)
        for _ in range(2):
            with pytest.raises(PhotoUnavailableError, match="leave getFile alone") as refused:
                await photos.get(*photo)
            assert 28 <= refused.value.retry_after <= 30
        assert telegram.counted["GetFileRequest"] == 1
        live = post(telegram, 5)
        await until(lambda: live <= set(sinks[0].keys()))
        telegram.disconnect(2)
        await until(lambda: gateway.source.telegram is None)
        with pytest.raises(PhotoUnavailableError, match="not connected"):
            await photos.get(*photo)
        await until(lambda: gateway.source.telegram is not None, 20)
        telegram.faults.private = {next(iter(telegram.store.channels))}
        gateway.source.floods._until.clear()
        with pytest.raises(PhotoMissingError):
            await photos.get(*photo)


@pytest.mark.requirement("GW-08")
def test_the_least_recently_asked_for_goes_first(tmp_path: Path) -> None:
    tmp_path.joinpath("-1001_1.jpg").write_bytes(bytes(40))  # as the legacy system left it
    os.utime(tmp_path / "-1001_1.jpg", (1, 1))
    cache = PhotoCache(tmp_path, 100)
    cache.write((-1001, 2), bytes(40))
    assert cache.read((-1001, 1)) == bytes(40)
    cache.write((-1001, 3), bytes(30))
    assert (cache.read((-1001, 2)), cache.size) == (None, 70)
    cache.write((-1001, 4), bytes(101))
    assert cache.read((-1001, 4)) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["-1001_1.jpg", "-1001_3.jpg"]
    smaller = PhotoCache(tmp_path, 35)
    assert (smaller.read((-1001, 1)), smaller.read((-1001, 3))) == (None, bytes(30))

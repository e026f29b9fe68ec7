"""Photos on demand, kept on disk within a limit: the least recently asked for goes first.

A message is asked for right before its file is: the reference to a file that Telegram gives is good for hours only.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from telethon import errors
from telethon.tl import types

from telegram_stack.telegram.asking import Telegram
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.client import TEMPORARY
from telegram_stack.telegram.convert import unmarked
from telegram_stack.telegram.source import TelegramSource

log = logging.getLogger(__name__)

_AT_ONCE = 4
_METHODS = ("getMessages", "getFile")
_RETRY_SECONDS = 5

_EXPIRED = (errors.FileReferenceExpiredError, errors.FileReferenceInvalidError, errors.FileReferenceEmptyError)

Key = tuple[int, int]


class PhotoMissingError(Exception):
    """There is no such photo, or the account cannot see it."""


class PhotoUnavailableError(Exception):
    """Not now; `retry_after` seconds later it may be."""

    def __init__(self, message: str, retry_after: int = _RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PhotoCache:
    """Files ``{channel}_{message}.jpg`` in `folder`, together at most `limit` bytes. Methods block."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Takes over what is there."""
        self._folder = folder
        self._limit = limit
        found = [(file.stat(), file.name) for file in folder.glob("*.jpg")]
        found.sort(key=lambda pair: pair[0].st_mtime_ns)
        self._sizes = OrderedDict((name, status.st_size) for status, name in found)
        self.size = sum(self._sizes.values())
        """Bytes that are kept."""
        self._shrink()

    def read(self, key: Key) -> bytes | None:
        """The photo, if it is kept; it counts as asked for now."""
        file = self._folder / _name(key)
        try:
            data = file.read_bytes()
            os.utime(file)
        except OSError:
            return None
        if file.name in self._sizes:
            self._sizes.move_to_end(file.name)
        return data

    def write(self, key: Key, data: bytes) -> None:
        """Keep a photo and give up others for it. Raises OSError."""
        if len(data) > self._limit:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._folder / _name(key)
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.chmod(0o600)
        part.replace(file)
        self._drop(file.name)
        self._sizes[file.name] = len(data)
        self.size += len(data)
        self._shrink()

    def forget(self, key: Key) -> None:
        """The message has changed."""
        name = _name(key)
        if name in self._sizes:
            self._drop(name)
            (self._folder / name).unlink(missing_ok=True)

    def forget_channel(self, channel_id: int) -> None:
        """The channel was erased."""
        for name in [name for name in self._sizes if name.startswith(f"{channel_id}_")]:
            self._drop(name)
            (self._folder / name).unlink(missing_ok=True)

    def _drop(self, name: str) -> None:
        self.size -= self._sizes.pop(name, 0)

    def _shrink(self) -> None:
        while self.size > self._limit:
            name = next(iter(self._sizes))
            self._drop(name)
            (self._folder / name).unlink(missing_ok=True)


def _name(key: Key) -> str:
    return f"{key[0]}_{key[1]}.jpg"


class Photos:
    """Gives photos from the cache or from Telegram; who asks for one that is on its way waits for the same download."""

    def __init__(self, source: TelegramSource, channels: Channels, cache: PhotoCache) -> None:
        self._source = source
        self._channels = channels
        self._cache = cache
        self._running: dict[Key, asyncio.Task[bytes]] = {}
        self._changed: set[Key] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)

    @property
    def cached_bytes(self) -> int:
        """Bytes that are kept on disk."""
        return self._cache.size

    async def get(self, channel_id: int, message_id: int) -> tuple[bytes, Literal["cached", "downloaded"]]:
        """The JPEG of a message, and where it was. Raises PhotoMissingError, PhotoUnavailableError."""
        key = (channel_id, message_id)
        if key not in self._running:
            if (data := self._cache.read(key)) is not None:
                return data, "cached"
            task = self._running[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda _task: self._running.pop(key, None))
        # A caller that goes away must not end it for the others.
        return await asyncio.shield(self._running[key]), "downloaded"

    def forget(self, channel_id: int, message_id: int) -> None:
        """The message was edited or deleted: its photo may be another one."""
        key = (channel_id, message_id)
        if key in self._running:
            self._changed.add(key)
        self._cache.forget(key)

    def forget_channel(self, channel_id: int) -> None:
        """The channel was erased."""
        self._changed |= {key for key in self._running if key[0] == channel_id}
        self._cache.forget_channel(channel_id)

    async def _fetch(self, key: Key) -> bytes:
        self._changed.discard(key)
        async with self._room:
            data = await self._download(key)
        if key not in self._changed:
            with suppress(OSError):  # a full disk: it is asked for again next time
                self._cache.write(key, data)
        return data

    async def _download(self, key: Key) -> bytes:
        telegram = self._source.telegram
        if telegram is None:
            raise PhotoUnavailableError("the gateway is not connected to Telegram")
        for method in _METHODS:
            if wait := telegram.floods.remaining(method):
                raise PhotoUnavailableError(f"Telegram asks to leave {method} alone", math.ceil(wait))
        try:
            try:
                return await self._ask(telegram, key)
            except _EXPIRED:  # between the two requests: the message brings a new reference
                return await self._ask(telegram, key)
        except errors.FloodWaitError as error:
            method = telegram.floods.note(error)
            raise PhotoUnavailableError(f"Telegram asks to leave {method} alone", error.seconds) from error
        except (errors.BadRequestError, errors.ForbiddenError) as error:
            raise PhotoMissingError(f"Telegram does not show it: {error}") from error
        except (*TEMPORARY, ValueError) as error:
            raise PhotoUnavailableError(f"Telegram does not answer: {error}") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Telethon cancels what waits when a connection ends.
            raise PhotoUnavailableError("the connection to Telegram was lost") from None

    async def _ask(self, telegram: Telegram, key: Key) -> bytes:
        channel_id, message_id = key
        access_hash = self._channels[channel_id].access_hash
        if access_hash is None:
            raise PhotoMissingError(f"the account is not in channel {channel_id}")
        peer = types.InputPeerChannel(unmarked(channel_id), access_hash)
        message: Any = await telegram.client.get_messages(peer, ids=message_id)
        if message is None or message.photo is None:
            raise PhotoMissingError(f"message {message_id} of channel {channel_id} shows no photo")
        data = await telegram.client.download_media(message.photo, file=bytes)
        if not data:
            raise PhotoMissingError(f"the photo of message {message_id} of channel {channel_id} is empty")
        return bytes(data)

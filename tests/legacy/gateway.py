"""The legacy gateway: Telegram's messages into the table, row by row.

Run in its folder: `python -m tests.legacy.gateway`. It does to the data what the real one does, no more: on start and
on demand it reads each channel's newest messages again, and what comes live is also appended to the failure queue,
because nothing is pushed on.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from telethon import TelegramClient, events, types
from telethon.sessions import StringSession
from tests.legacy import settings
from tests.legacy.settings import FAILURE_QUEUE, SESSION, Settings
from tests.legacy.store import Found, Store

from telegram_stack.observability.http import serve
from telegram_stack.telegram.string_session import to_telethon

log = logging.getLogger("legacy-gateway")


class Gateway:
    """One client, one table."""

    def __init__(self, client: Any, store: Store, token: str) -> None:
        self._client = client
        self._store = store
        self._token = token
        self._active: set[int] = set()
        self._ready = False
        self._syncing = asyncio.Lock()
        client.add_event_handler(self._new, events.NewMessage)
        client.add_event_handler(self._edited, events.MessageEdited)
        client.add_event_handler(self._deleted, events.MessageDeleted)

    async def start(self, limit: int) -> None:
        """Connect, and catch up as far as a sync does."""
        await self._client.connect()
        if not await self._client.is_user_authorized():
            raise SystemExit(f"legacy-gateway: Telegram does not accept the session in {SESSION}")
        self._active = await self._store.active_channels()
        self._ready = True
        await self.sync(limit, "startup")

    def routes(self) -> list[Route]:
        """Its own port."""
        return [Route("/health", self._health), Route("/sync-messages", self._sync_request, methods=["POST"])]

    async def _health(self, _request: Request) -> Response:
        # is_connected() says yes while Telethon connects again.
        connected = self._ready and self._client._sender._transport_connected()
        body = {
            "status": "healthy" if connected else "unhealthy",
            "telegram": "connected" if connected else "disconnected",
        }
        return JSONResponse(body, 200 if connected else 503)

    async def _sync_request(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("x-api-key", "").encode(), self._token.encode()):
            return JSONResponse({"success": False, "message": "Unauthorized"}, 401)
        limit = int(json.loads(await request.body() or b"{}").get("limit", 500))
        return JSONResponse({"success": True, "data": await self.sync(limit, "request")})

    async def sync(self, limit: int, reason: str) -> dict[str, int]:
        """Read the newest `limit` messages of each channel; insert what has no row, change what differs."""
        counts = {"channels": 0, "inserted": 0, "updated": 0}
        async with self._syncing:
            async for dialog in self._client.iter_dialogs():
                if not self._takes(dialog.id):
                    continue
                counts["channels"] += 1
                found = [
                    _found(message) async for message in self._client.iter_messages(dialog.input_entity, limit=limit)
                ]
                await self._compare(dialog.id, [one for one in found if one is not None], reason, counts)
        log.info("sync (%s): %s", reason, counts)
        return counts

    async def _compare(self, channel_id: int, found: list[Found], reason: str, counts: dict[str, int]) -> None:
        known = await self._store.known(channel_id, [one.message_id for one in found])
        for one in reversed(found):
            if one.message_id not in known:
                synced = {"syncedAt": datetime.now(UTC).isoformat(), "reason": reason}
                await self._store.insert(one, one.date, **synced)
                counts["inserted"] += 1
            elif known[one.message_id] != one.text:
                await self._store.edit(one)
                counts["updated"] += 1

    def _takes(self, channel_id: int) -> bool:
        return not self._active or channel_id in self._active

    async def _new(self, event: Any) -> None:
        found = _found(event.message)
        if found is not None and self._takes(found.channel_id):
            now = datetime.now(UTC)
            await self._store.insert(found, now)
            _append(found, now)

    async def _edited(self, event: Any) -> None:
        found = _found(event.message)
        if found is not None and self._takes(found.channel_id):
            await self._store.edit(found)

    async def _deleted(self, event: Any) -> None:
        if event.chat_id is not None and self._takes(event.chat_id):
            for number in event.deleted_ids:
                await self._store.delete(event.chat_id, number)


def _found(message: Any) -> Found | None:
    if not isinstance(message, types.Message) or not isinstance(message.peer_id, types.PeerChannel):
        return None
    photo = message.photo
    metadata: dict[str, Any] = {
        "telegram": {"chatId": str(message.chat_id), "messageType": "channel_post"},
    }
    if photo:
        identity = {"photoId": str(photo.id), "accessHash": str(photo.access_hash)}
        metadata["photo"] = {"channelId": str(message.chat_id), "messageId": message.id, **identity}
    if message.reply_to_msg_id:
        metadata["replyTo"] = {"messageId": message.reply_to_msg_id, "text": None}
    media_type = "photo" if photo else "document" if message.document else None
    return Found(
        channel_id=message.chat_id,
        message_id=message.id,
        text=message.message or "",
        date=message.date,
        media_type=media_type,
        media_refs=[{"type": media_type, "fileId": str(message.id)}] if media_type else [],
        thread_id=None,
        metadata=metadata,
    )


def _append(found: Found, received_at: datetime) -> None:
    text, caption = found.contents
    entry = {
        "channelId": str(found.channel_id),
        "messageId": found.message_id,
        "text": text or "",
        "caption": caption,
        "mediaType": found.media_type,
        "mediaRefs": found.media_refs,
        "source": "user_client",
        "messageType": "channel_post",
        "telegramDate": found.date.isoformat(),
        "receivedAt": received_at.isoformat(),
        "metadata": found.metadata,
        "failedAt": datetime.now(UTC).isoformat(),
    }
    with FAILURE_QUEUE.open("a") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


@asynccontextmanager
async def _serving(gateway: Gateway, port: int) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(serve(Starlette(routes=gateway.routes()), "127.0.0.1", port))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run(given: Settings) -> None:
    """Until SIGTERM, or until Telegram refuses the session."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    session = StringSession(to_telethon(SESSION.read_text().strip()))
    client = TelegramClient(
        session, given.api_id, given.api_hash, connection_retries=None, retry_delay=1, sequential_updates=True
    )
    store = Store(given.database)
    await store.open()
    gateway = Gateway(client, store, given.api_token)
    async with _serving(gateway, given.gateway_port) as serving:
        try:
            await gateway.start(given.sync_limit)
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({stopped, serving, client.disconnected}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if serving.done():
                serving.result()
        finally:
            await client.disconnect()
            await store.close()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("telethon").setLevel(logging.WARNING)
    asyncio.run(run(settings.read()))


if __name__ == "__main__":
    main()

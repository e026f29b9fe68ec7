"""The simulated Telegram: its connections, its request handlers, and what happens in its channels."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from telegram_stack.simulator import objects, rpc_auth, rpc_messages, rpc_updates
from telegram_stack.simulator.connection import Connection
from telegram_stack.simulator.faults import Faults
from telegram_stack.simulator.limits import RequestLimit
from telegram_stack.simulator.model import AuthKeyRecord, Change, Draft, Message
from telegram_stack.simulator.rpc import Call, Handler, RpcError
from telegram_stack.simulator.store import Store

log = logging.getLogger(__name__)

_HANDLERS: dict[type, Handler] = {**rpc_auth.HANDLERS, **rpc_updates.HANDLERS, **rpc_messages.HANDLERS}


@dataclass(frozen=True, slots=True)
class Settings:
    """How strict this Telegram is.

    ``history_rate`` requests a second, ``history_burst`` at once; rate 0: no limit.
    ``difference_limit``: a channel further behind (in pts) is told that the difference is too long.
    ``shared_keys``: ``refuse`` kills a key that is in use from two addresses at once, as Telegram does.
    """

    history_rate: float = 10.0
    history_burst: int = 100
    difference_limit: int = 5000
    shared_keys: Literal["refuse", "allow"] = "refuse"


class Server:
    """Listens for clients. Posting, editing and deleting reach every session that is online."""

    def __init__(self, store: Store, settings: Settings | None = None) -> None:
        self.store = store
        self.settings = settings or Settings()
        self.history_limit = RequestLimit(self.settings.history_rate, self.settings.history_burst)
        self.faults = Faults()
        self.counted: Counter[str] = Counter()
        """Requests by the name of their TL class."""
        self.password_checks: dict[bytes, tuple[int, int, bytes]] = {}
        """By key id: SRP id, our secret exponent and B of the password check under way."""
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Server | None = None
        self._refuse_until = 0.0

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; port 0 takes a free one. Returns the address."""
        self._listener = await asyncio.start_server(self._accept, host, port)
        address, port = self._listener.sockets[0].getsockname()[:2]
        return address, port

    async def stop(self) -> None:
        """Close the listener and cut every connection."""
        if self._listener is None:
            return
        self._listener.close()
        self.disconnect(0)
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if time.monotonic() < self._refuse_until:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def disconnect(self, refuse_seconds: float) -> int:
        """Cut every connection and refuse new ones for a while. Returns how many were cut."""
        self._refuse_until = time.monotonic() + refuse_seconds
        cut = list(self._connections)
        for connection in cut:
            connection.abort()
        return len(cut)

    def handle(self, connection: Connection, key: AuthKeyRecord, request: Any) -> Any:
        """The result of one request. Raises RpcError."""
        if key.dead or self._shared(connection, key):
            raise RpcError(406, "AUTH_KEY_DUPLICATED")
        handler = _HANDLERS.get(type(request))
        if handler is None:
            raise RpcError(400, f"INPUT_METHOD_INVALID_{request.CONSTRUCTOR_ID}")
        name = type(request).__name__
        self.counted[name] += 1
        wait = self.faults.flood_wait(name.removesuffix("Request"))
        if wait:
            raise RpcError(420, f"FLOOD_WAIT_{math.ceil(wait)}")
        try:
            return handler(Call(self, key, connection.local_address), request)
        except RpcError:
            raise
        except Exception as error:
            log.exception("%s failed", name)
            raise RpcError(500, "INTERNAL_SERVER_ERROR") from error

    def _shared(self, connection: Connection, key: AuthKeyRecord) -> bool:
        """Whether a live session of another address has this key; if so it is dead from now on."""
        if key.account_id is None or self.settings.shared_keys == "allow":
            return False
        others = [
            c
            for c in self._connections
            if c.key and c.key.id == key.id and c.subscribed and c.peer_address != connection.peer_address
        ]
        if not others:
            return False
        log.warning("a key is used from %s and %s at once: it is dead", others[0].peer_address, connection.peer_address)
        self.store.kill_key(key)
        return True

    # what happens in channels

    def post(self, drafts: Sequence[Draft]) -> list[Message]:
        """Post messages: committed, then pushed."""
        posted = self.store.post(drafts)
        self._push([(change, {message.id: message}) for change, message in posted])
        return [message for _, message in posted]

    def edit(self, channel_id: int, message_id: int, text: str) -> Message | None:
        """Change a text; None when the message is not shown."""
        edited = self.store.edit(channel_id, message_id, text)
        if edited is None:
            return None
        change, message = edited
        self._push([(change, {message.id: message})])
        return message

    def reveal(self, channel_id: int, message_id: int) -> Message | None:
        """Make the preview of a message's link; None when there is none to be made."""
        revealed = self.store.reveal(channel_id, message_id)
        if revealed is None:
            return None
        change, message = revealed
        self._push([(change, {message.id: message})])
        return message

    def delete(self, channel_id: int, message_ids: Sequence[int]) -> tuple[int, ...]:
        """Delete messages; returns those that were shown."""
        change = self.store.delete(channel_id, message_ids)
        if change is None:
            return ()
        self._push([(change, {})])
        return change.message_ids

    def _push(self, changes: Sequence[tuple[Change, dict[int, Message]]]) -> None:
        changes = self.faults.arrange(changes)
        sessions: dict[int, list[Connection]] = {}
        for connection in self._connections:
            key = connection.key and self.store.key(connection.key.id)
            if connection.subscribed and key and key.account_id is not None and not key.awaits_password:
                sessions.setdefault(key.account_id, []).append(connection)
        now = int(self.store.clock())
        for account_id, connections in sessions.items():
            account = self.store.account_by_id(account_id)
            chats = {
                c.channel_id: objects.channel(self.store, account, self.store.channel(c.channel_id)) for c, _ in changes
            }
            for change, messages in changes:
                body = bytes(objects.updates([objects.update(change, messages)], [chats[change.channel_id]], now))
                for connection in connections:
                    connection.push(body)

"""One client's connection: key exchange, decryption, containers, requests, answers, pushes.

Source: https://core.telegram.org/mtproto/service_messages
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from telethon.errors import TypeNotFoundError
from telethon.extensions import BinaryReader
from telethon.tl import functions, types
from telethon.tl.core import GzipPacked, MessageContainer, RpcResult

from telegram_stack.simulator import crypto
from telegram_stack.simulator.handshake import Handshake, HandshakeError
from telegram_stack.simulator.model import AuthKeyRecord
from telegram_stack.simulator.rpc import RpcError
from telegram_stack.simulator.transport import BrokenFrameError, Framing, recognise

if TYPE_CHECKING:
    from telegram_stack.simulator.server import Server

log = logging.getLogger(__name__)

_CONTAINER = struct.pack("<I", MessageContainer.CONSTRUCTOR_ID)
_GZIP = struct.pack("<I", GzipPacked.CONSTRUCTOR_ID)
_TOO_OLD, _TOO_NEW = 300, 30  # seconds by which a client's clock may differ
_BATCH_MESSAGES, _BATCH_BYTES = 100, 500_000
_BACKLOG = 100_000  # messages; a client that reads no more is cut off and gets the rest as a difference
_WRAPPERS = (
    functions.InvokeWithLayerRequest,
    functions.InitConnectionRequest,
    functions.InvokeWithoutUpdatesRequest,
    functions.InvokeAfterMsgRequest,
    functions.InvokeAfterMsgsRequest,
)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    body: bytes
    answer: bool
    content: bool


class Connection:
    """A TCP connection, from accept to close. ``subscribed``: its session wants updates."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self.peer_address: str = writer.get_extra_info("peername")[0]
        self.local_address: tuple[str, int] = writer.get_extra_info("sockname")[:2]
        self.key: AuthKeyRecord | None = None
        self.subscribed = False
        self._framing: Framing | None = None
        self._handshake: Handshake | None = None
        self._session_id: int | None = None
        self._salt = 0
        self._ids = crypto.MessageIds(server.store.clock)
        self._content_sent = 0
        self._queue: deque[_Outgoing] = deque()
        self._waiting = asyncio.Event()

    async def run(self) -> None:
        """Serve the client until either side closes."""
        sender = asyncio.create_task(self._send_queued())
        try:
            self._framing = await recognise(self._reader)
            while True:
                self._received(await self._framing.read(self._reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (BrokenFrameError, HandshakeError, struct.error, TypeNotFoundError, BufferError) as error:
            log.warning("connection of %s closed: %s", self.peer_address, error)
        finally:
            sender.cancel()
            self.abort()

    def abort(self) -> None:
        """Cut the connection, as a broken line would."""
        self._writer.transport.abort()

    def push(self, body: bytes) -> None:
        """Send a serialised Updates object."""
        if not self._server.faults.silent:
            self._enqueue(body, answer=False, content=True)

    # receiving

    def _received(self, packet: bytes) -> None:
        if self._server.faults.silent:
            return
        if packet[:8] == crypto.PLAIN_KEY_ID:
            self._exchange(packet)
            return
        record = self._server.store.key(packet[:8])
        if record is None:
            self._write(crypto.KEY_NOT_FOUND)
            return
        try:
            incoming = crypto.decrypt(record.key, packet)
        except crypto.UndecryptableError as error:
            log.warning("packet of %s dropped: %s", self.peer_address, error)
            return
        self.key = record
        self._salt = self._server.store.hash_of(int.from_bytes(record.id, "little", signed=True))
        if incoming.session_id != self._session_id:
            self._session_id = incoming.session_id
            self._content_sent = 0
            first = True
        else:
            first = False
        if incoming.salt != self._salt:
            self._session_id = None if first else self._session_id
            self._refuse(
                incoming,
                types.BadServerSalt(
                    bad_msg_id=incoming.msg_id, bad_msg_seqno=incoming.seq_no, error_code=48, new_server_salt=self._salt
                ),
            )
            return
        wrong = self._clock_error(incoming.msg_id)
        if wrong:
            self._session_id = None if first else self._session_id
            self._refuse(incoming, types.BadMsgNotification(incoming.msg_id, incoming.seq_no, wrong))
            return
        if first:
            self._enqueue(
                bytes(
                    types.NewSessionCreated(
                        first_msg_id=incoming.msg_id, unique_id=incoming.session_id, server_salt=self._salt
                    )
                ),
                answer=False,
                content=True,
            )
        self._message(incoming.msg_id, incoming.body)

    def _exchange(self, packet: bytes) -> None:
        (length,) = struct.unpack_from("<i", packet, 16)
        with BinaryReader(packet[20 : 20 + length]) as reader:
            request = reader.tgread_object()
        if self._handshake is None or isinstance(request, functions.ReqPqMultiRequest | functions.ReqPqRequest):
            self._handshake = Handshake(self._server.store.server_key, self._server.store.clock)
        reply = bytes(self._handshake.answer(request))
        if self._handshake.auth_key is not None:
            self._server.store.add_key(self._handshake.auth_key)
            self._handshake = None
        self._write(crypto.PLAIN_KEY_ID + struct.pack("<qi", self._ids.next(answer=True), len(reply)) + reply)

    def _clock_error(self, msg_id: int) -> int:
        """Telegram's error code for a message id that is far from the server's time; 0 when it is near."""
        ahead = (msg_id >> 32) - self._server.store.clock()
        return 16 if ahead < -_TOO_OLD else 17 if ahead > _TOO_NEW else 0

    def _refuse(self, incoming: crypto.Incoming, refusal: Any) -> None:
        body = bytes(refusal)
        message = struct.pack("<qii", self._ids.next(answer=True), 0, len(body)) + body
        assert self.key is not None
        self._write(crypto.encrypt(self.key.key, self._salt, incoming.session_id, message))

    def _message(self, msg_id: int, body: bytes) -> None:
        """Handle one message; those of a container one by one, so that a bad one harms no other."""
        if body[:4] == _CONTAINER:
            (count,) = struct.unpack_from("<i", body, 4)
            position = 8
            for _ in range(count):
                inner_id, _seq_no, length = struct.unpack_from("<qii", body, position)
                position += 16
                self._message(inner_id, body[position : position + length])
                position += length
            return
        if body[:4] == _GZIP:
            with BinaryReader(body[4:]) as reader:
                body = GzipPacked.from_reader(reader).data
        try:
            with BinaryReader(body) as reader:
                request = reader.tgread_object()
        except TypeNotFoundError as error:
            self._answer(msg_id, _rpc_error(400, f"INPUT_METHOD_INVALID_{error.invalid_constructor_id}"))
            return
        self._request(msg_id, request)

    def _request(self, msg_id: int, request: Any) -> None:
        match request:
            case types.MsgsAck():
                return
            case functions.PingRequest() | functions.PingDelayDisconnectRequest():
                pong = types.Pong(msg_id=msg_id, ping_id=request.ping_id)
                self._enqueue(bytes(pong), answer=True, content=False)
                return
            case types.MsgsStateReq():
                info = types.MsgsStateInfo(req_msg_id=msg_id, info=b"\x04" * len(request.msg_ids))
                self._enqueue(bytes(info), answer=True, content=False)
                return
        wants_updates = True
        while isinstance(request, _WRAPPERS):
            wants_updates = wants_updates and not isinstance(request, functions.InvokeWithoutUpdatesRequest)
            request = request.query
        assert self.key is not None
        try:
            result = self._server.handle(self, self.key, request)
        except RpcError as error:
            log.info("%s of %s refused: %s", type(request).__name__, self.peer_address, error)
            self._answer(msg_id, _rpc_error(error.code, error.message))
            return
        self.key = self._server.store.key(self.key.id)
        self.subscribed = self.subscribed or wants_updates
        self._answer(msg_id, GzipPacked.gzip_if_smaller(True, serialised(result)))

    # sending

    def _answer(self, msg_id: int, body: bytes) -> None:
        answer = partial(
            self._enqueue, struct.pack("<Iq", RpcResult.CONSTRUCTOR_ID, msg_id) + body, answer=True, content=True
        )
        if self._server.faults.delay:
            asyncio.get_running_loop().call_later(self._server.faults.delay, answer)
        else:
            answer()

    def _enqueue(self, body: bytes, *, answer: bool, content: bool) -> None:
        if len(self._queue) >= _BACKLOG:
            log.warning("connection of %s closed: it has not read %d messages", self.peer_address, _BACKLOG)
            self.abort()
            return
        self._queue.append(_Outgoing(body, answer, content))
        self._waiting.set()

    async def _send_queued(self) -> None:
        try:
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                while self._queue and self.key is not None and self._session_id is not None:
                    message = self._next_message()
                    self._write(crypto.encrypt(self.key.key, self._salt, self._session_id, message))
                    await self._writer.drain()
        except ConnectionError:
            self.abort()

    def _next_message(self) -> bytes:
        """The queue's head as one message, a container when more than one waits."""
        parts: list[bytes] = []
        size = 0
        answer = True
        while self._queue and len(parts) < _BATCH_MESSAGES and size < _BATCH_BYTES:
            outgoing = self._queue.popleft()
            answer = outgoing.answer
            head = struct.pack(
                "<qii", self._ids.next(answer=answer), self._sequence(outgoing.content), len(outgoing.body)
            )
            parts.append(head + outgoing.body)
            size += len(outgoing.body)
        if len(parts) == 1:
            return parts[0]
        body = _CONTAINER + struct.pack("<i", len(parts)) + b"".join(parts)
        return struct.pack("<qii", self._ids.next(answer=answer), self._sequence(False), len(body)) + body

    def _sequence(self, content: bool) -> int:
        number = self._content_sent * 2 + (1 if content else 0)
        self._content_sent += 1 if content else 0
        return number

    def _write(self, packet: bytes) -> None:
        assert self._framing is not None
        self._writer.write(self._framing.frame(packet))


def serialised(result: Any) -> bytes:
    """A result as TL: booleans and vectors have no class of their own."""
    if isinstance(result, bool):
        return struct.pack("<I", 0x997275B5 if result else 0xBC799737)
    if isinstance(result, list):
        return struct.pack("<Ii", 0x1CB5C415, len(result)) + b"".join(map(bytes, result))
    return bytes(result)


def _rpc_error(code: int, message: str) -> bytes:
    return bytes(types.RpcError(error_code=code, error_message=message))

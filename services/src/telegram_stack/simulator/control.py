"""The control port: HTTP and JSON for tests and for the demo. No part of Telegram, no protection: loopback only.

Channel ids are marked (``-100…``) as everywhere outside the simulator.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from telethon.crypto import AuthKey
from telethon.sessions import StringSession

from telegram_stack.simulator import load, objects, rpc_auth, texts
from telegram_stack.simulator.bodies import (
    Deletion,
    Disconnect,
    Edit,
    NewAccount,
    NewChannels,
    NewFaults,
    NewHistory,
    NewLoad,
    NewMessages,
    NewSession,
    NewTopic,
    Preview,
)
from telegram_stack.simulator.model import BOT, Channel, Details, Draft, Message, UnknownChannelError
from telegram_stack.simulator.server import Server

_MARK = 10**12

T = TypeVar("T", bound=msgspec.Struct)


class ControlError(Exception):
    """The request cannot be done; the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def marked(channel_id: int) -> int:
    """Telegram's marked id of a channel."""
    return -(_MARK + channel_id)


class Control:
    """The handlers. One load runs at a time."""

    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self._server = server
        self._store = server.store
        self._address = address
        self._load: load.Load | None = None

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            ("/health", "GET", self._health),
            ("/public-key", "GET", self._public_key),
            ("/sessions", "POST", self._new_session),
            ("/accounts", "POST", self._new_account),
            ("/codes/{phone}", "GET", self._code),
            ("/channels", "GET", self._channels),
            ("/channels", "POST", self._new_channels),
            ("/messages", "GET", self._messages),
            ("/messages", "POST", self._post),
            ("/history", "POST", self._new_history),
            ("/topics", "POST", self._new_topic),
            ("/previews", "POST", self._preview),
            ("/edits", "POST", self._edit),
            ("/deletes", "POST", self._delete),
            ("/load", "GET", self._load_state),
            ("/load", "POST", self._start_load),
            ("/load", "DELETE", self._stop_load),
            ("/disconnect", "POST", self._disconnect),
            ("/faults", "GET", self._faults),
            ("/faults", "POST", self._set_faults),
        ]
        return Starlette(
            routes=[Route(path, _guarded(handler), methods=[method]) for path, method, handler in routes],
        )

    async def start_load(
        self,
        rate: float,
        count: int | None = None,
        channels: int | None = None,
        changes: load.Changes = load.NO_CHANGES,
    ) -> load.Load:
        """Start the load; it runs without end when there is no count. Raises ControlError."""
        if self._load is not None and self._load.running:
            raise ControlError(409, "a load is running: end it with DELETE /load first")
        if rate <= 0:
            raise ControlError(422, f"rate must be above 0, not {rate}")
        channel_ids = list(self._store.channels)[:channels]
        if not channel_ids:
            raise ControlError(409, "there is no channel: make some with POST /channels first")
        self._load = load.Load(self._server, channel_ids, rate, count, changes)
        return self._load

    async def stop(self) -> None:
        """End the load, if one runs."""
        if self._load is not None:
            await self._load.stop()

    async def _health(self, _request: Request) -> Any:
        return {
            "status": "ok",
            "address": f"{self._address[0]}:{self._address[1]}",
            "connections": self._server.connections,
            "channels": len(self._store.channels),
            "messages_posted": self._store.sequence,
            "requests": dict(self._server.counted),
        }

    async def _public_key(self, _request: Request) -> Any:
        return PlainTextResponse(self._store.server_key.public_pem, media_type="application/x-pem-file")

    async def _new_session(self, request: Request) -> Any:
        body = await _body(request, NewSession)
        host = body.address or self._address[0]
        try:
            unspecified = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            raise ControlError(422, f"address must be an IP address, not {host!r}: a session holds no name") from None
        if unspecified:
            raise ControlError(422, f"the simulator listens on {host}: say in address where the client reaches it")
        phone = _phone(body.phone)
        account = self._store.account(f"{BOT}{phone}" if body.bot else phone)
        key = b"\x01" + os.urandom(255)
        self._store.add_key(key, account.id)
        session = StringSession()
        session.set_dc(objects.DC_ID, host, self._address[1])
        session.auth_key = AuthKey(key)
        return {
            "session": session.save(),
            "phone": account.phone,
            "user_id": account.id,
            "dc_id": objects.DC_ID,
            "address": host,
            "port": self._address[1],
        }

    async def _new_account(self, request: Request) -> Any:
        body = await _body(request, NewAccount)
        phone = _phone(body.phone)
        if body.password is None:
            self._store.set_password(phone, None, None, None)
        else:
            self._store.set_password(phone, *rpc_auth.password_verifier(body.password))
        return {"phone": phone, "user_id": self._store.account(phone).id, "has_password": body.password is not None}

    async def _code(self, request: Request) -> Any:
        phone = _phone(request.path_params["phone"])
        code = self._store.code(phone)
        if code is None:
            raise ControlError(404, f"no code is waiting for {phone}")
        return {"phone": phone, "code": code.code, "sent_at": code.sent_at}

    async def _channels(self, _request: Request) -> Any:
        return {"channels": [_shown_channel(channel) for channel in self._store.channels.values()]}

    async def _new_channels(self, request: Request) -> Any:
        body = await _body(request, NewChannels)
        return {"channels": [_shown_channel(c) for c in self._store.add_channels(body.title, body.count, body.kind)]}

    async def _messages(self, request: Request) -> Any:
        query = request.query_params
        channel = _bare(int(query["channel"])) if "channel" in query else None
        found = self._store.all_messages(channel, deleted=query.get("deleted") == "true")
        return {"messages": [_shown_message(message, text=query.get("text") == "true") for message in found]}

    async def _post(self, request: Request) -> Any:
        body = await _body(request, NewMessages)
        channel_ids = list(self._store.channels) if body.channel_id is None else [_bare(body.channel_id)]
        if not channel_ids:
            raise ControlError(409, "there is no channel: make some with POST /channels first")
        posted = self._server.post(self._drafts(body, channel_ids))
        return {"messages": [_shown_message(message, text=body.count == 1) for message in posted]}

    def _drafts(self, body: NewMessages, channel_ids: list[int]) -> list[Draft]:
        first = self._store.sequence + 1
        details = Details(
            media=body.media,
            grouped_id=self._store.hash_of(first) if body.album else None,
            topic_id=body.topic,
            reply_to=body.reply_to,
            forward=body.forward,
            link=body.link,
            pending=body.pending,
        )
        drafts = []
        for number in range(first, first + body.count):
            text = texts.text(number) if body.text is None else body.text
            text = f"{text} {body.link}" if body.link else text
            channel_id = channel_ids[0] if body.album else channel_ids[number % len(channel_ids)]
            drafts.append(Draft(channel_id, text, body.photo, details))
        return drafts

    async def _new_history(self, request: Request) -> Any:
        body = await _body(request, NewHistory)
        drafts = load.drafts(self._server, [_bare(body.channel_id)], body.count)
        past = self._store.backfill(_bare(body.channel_id), drafts, body.after_id, body.seconds)
        return {"messages": [_shown_message(message, text=False) for message in past]}

    async def _new_topic(self, request: Request) -> Any:
        body = await _body(request, NewTopic)
        if self._store.channel(_bare(body.channel_id)).kind != "forum":
            raise ControlError(409, f"channel {body.channel_id} is no forum: make one with POST /channels, kind forum")
        [opened] = self._server.post([Draft(_bare(body.channel_id), "", details=Details(topic=body.title))])
        return {"channel_id": body.channel_id, "topic": opened.id, "title": body.title}

    async def _edit(self, request: Request) -> Any:
        body = await _body(request, Edit)
        edited = self._server.edit(_bare(body.channel_id), body.message_id, body.text)
        if edited is None:
            raise ControlError(404, f"channel {body.channel_id} shows no message {body.message_id}")
        return {"messages": [_shown_message(edited, text=True)]}

    async def _preview(self, request: Request) -> Any:
        body = await _body(request, Preview)
        revealed = self._server.reveal(_bare(body.channel_id), body.message_id)
        if revealed is None:
            raise ControlError(404, f"message {body.message_id} of channel {body.channel_id} waits for no preview")
        return {"messages": [_shown_message(revealed, text=True)]}

    async def _delete(self, request: Request) -> Any:
        body = await _body(request, Deletion)
        deleted = self._server.delete(_bare(body.channel_id), body.message_ids)
        return {"channel_id": body.channel_id, "message_ids": deleted}

    async def _load_state(self, _request: Request) -> Any:
        if self._load is None:
            return {"running": False, "sent": 0}
        return {
            "running": self._load.running,
            "rate": self._load.rate,
            "count": self._load.count,
            "channels": self._load.channels,
            "sent": self._load.sent,
            "edited": self._load.edited,
            "deleted": self._load.deleted,
            "seconds": round(self._load.seconds, 3),
        }

    async def _start_load(self, request: Request) -> Any:
        body = await _body(request, NewLoad)
        if body.seconds is not None and body.count is not None:
            raise ControlError(422, "give seconds or count, not both")
        count = round(body.rate * body.seconds) if body.seconds is not None else body.count
        changes = load.Changes(body.edit_every, body.delete_every)
        await self.start_load(body.rate, count, body.channels, changes)
        return await self._load_state(request)

    async def _stop_load(self, request: Request) -> Any:
        await self.stop()
        return await self._load_state(request)

    async def _disconnect(self, request: Request) -> Any:
        body = await _body(request, Disconnect)
        return {"disconnected": self._server.disconnect(body.seconds)}

    async def _faults(self, _request: Request) -> Any:
        faults = self._server.faults
        return {
            "skip": faults.skip,
            "duplicate": faults.duplicate,
            "shuffle": faults.shuffle,
            "expire": faults.expire,
            "silent": faults.silent,
            "delay": faults.delay,
            "drift": self._store.clock.drift,
            "private": [marked(channel_id) for channel_id in sorted(faults.private)],
        }

    async def _set_faults(self, request: Request) -> Any:
        body = await _body(request, NewFaults)
        faults = self._server.faults
        for name in ("skip", "duplicate", "shuffle", "expire", "silent", "delay"):
            if getattr(body, name) is not None:
                setattr(faults, name, getattr(body, name))
        if body.drift is not None:
            self._store.clock.drift = body.drift
        if body.private is not None:
            faults.private = {_bare(channel_id) for channel_id in body.private}
        for method, seconds in (body.floods or {}).items():
            faults.flood(method, seconds)
        return await self._faults(request)


async def _body(request: Request, kind: type[T]) -> T:
    return msgspec.json.decode(await request.body() or b"{}", type=kind)


def _guarded(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            answer = await handler(request)
        except ControlError as error:
            return _json({"error": str(error)}, error.status)
        except UnknownChannelError as error:
            return _json({"error": str(error)}, 404)
        except (msgspec.DecodeError, ValueError) as error:
            return _json({"error": str(error)}, 422)
        return answer if isinstance(answer, Response) else _json(answer, 200)

    return guarded


def _json(content: Any, status: int) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _phone(given: str) -> str:
    return "".join(filter(str.isdigit, given))


def _bare(channel_id: int) -> int:
    if channel_id > -_MARK:
        raise ControlError(422, f"{channel_id} is no marked channel id (-100…)")
    return -channel_id - _MARK


def _shown_channel(channel: Channel) -> dict[str, Any]:
    return {
        "id": marked(channel.id),
        "title": channel.title,
        "username": channel.username,
        "kind": channel.kind,
        "pts": channel.pts,
        "last_message_id": channel.last_message_id,
        "messages": channel.shown,
    }


def _shown_message(message: Message, *, text: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "channel_id": marked(message.channel_id),
        "message_id": message.id,
        "date": message.date,
        "sent_at": message.sent_at,
        "edit_date": message.edit_date,
        "photo": message.has_photo,
    }
    if text:
        shown["text"] = message.text
    return shown

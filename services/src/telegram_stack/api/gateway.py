"""``/api/telegram-gateway``: log-in, session, backfill, photos and recovery, at the gateway's own port."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params
from telegram_stack.api.answers import Success, success
from telegram_stack.api.errors import FieldError, invalid, not_found
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.registry import given_channel
from telegram_stack.api.tokens import Scope
from telegram_stack.database import Connection, Pool, transaction

BASE = "/api/telegram-gateway"
CHANNEL = Param("channelId", params.channel_id, "The channel's marked id (-100…)", place="path")
MESSAGE = Param("messageId", params.integer(1, (1 << 31) - 1), "Telegram's number of the message", place="path")
PATIENCE_SECONDS = 60.0
"""Where the gateway has to ask others first: Telegram for a photo, push addresses for what they take."""

# Whether it is erased (of an erased channel only what came later is stored), and whose gateway can see it.
_PHOTO = """
SELECT EXISTS (
  SELECT FROM telegram.erased AS e WHERE e.channel_id = %(channel)s AND (
    e.message_id = %(message)s OR e.message_id = 0 AND NOT EXISTS (
      SELECT FROM telegram.message_keys AS k WHERE k.channel_id = %(channel)s AND k.message_id = %(message)s
    )
  )
), coalesce((SELECT account FROM telegram.channels WHERE channel_id = %(channel)s), '')
"""

Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class LoginStart(msgspec.Struct, rename="camel"):
    """One of the two."""

    phone: Secret | None = None
    bot_token: Secret | None = None


class LoginInput(msgspec.Struct):
    """The code, or the password, whichever is waited for."""

    value: Secret


class Login(msgspec.Struct, rename="camel", kw_only=True):
    """How the log-in is. `exit_code` is 0 when it completed, 1 when it ended otherwise; `logs` is its last word."""

    status: str
    message: str
    running: bool
    started_at: datetime | None = None
    finished_at: datetime | None = None
    retry_after: int | None = None
    exit_code: int | None = None
    logs: list[str] = []


class SyncRequest(msgspec.Struct):
    """The newest `limit` messages of these channels, or of all."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    channels: Annotated[list[int | str], msgspec.Meta(max_length=1000)] = []
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3


class Session(msgspec.Struct):
    """Whether the account is logged in and connected; `causes` say why not."""

    status: str
    connected: bool
    telegram: str
    causes: list[str]


class Recovery(msgspec.Struct, rename="camel"):
    """How far gap recovery is: `recovering` channels may miss something, `gaps` names the first 100 of them.

    `flood_waits` in seconds a method.
    """

    recovering: int
    gaps: list[str]
    progress: dict[str, Any]
    sync: dict[str, Any]
    flood_waits: dict[str, int]


class PushReplay(msgspec.Struct):
    """Of one push address (``push:host/path``), or of all."""

    address: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class Gateway:
    """What the gateway does on request. Where there are further accounts, a parameter says which one's is asked."""

    def __init__(self, client: GatewayClient, pool: Pool) -> None:
        self._client = client
        self._pool = pool
        reader = params.one_of(*client.accounts)
        self._account = Param("account", reader, "The account whose gateway is asked; the first one's without")

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        account = (self._account,) if self._client.accounts else ()

        def post(path: str, endpoint: Any, summary: str, **more: Any) -> Operation:
            more = {"params": account, **more}
            return Operation(method="POST", path=f"{BASE}{path}", endpoint=endpoint, summary=summary, **more)

        def get(path: str, endpoint: Any, summary: str, **more: Any) -> Operation:
            return Operation(
                method="GET",
                path=f"{BASE}{path}",
                endpoint=endpoint,
                summary=summary,
                **{"errors": (503,), "params": account, **more},
            )

        login: dict[str, Any] = {"scope": Scope.ADMIN, "answer": Success[Login]}
        sync: dict[str, Any] = {"answer": Success[dict[str, Any]]}
        return (
            get("/auth/status", self.login, "How the log-in is", answer=Success[Login]),
            post("/auth/start", self.start, "Begin a log-in", body=LoginStart, status=202, errors=(409,), **login),
            post(
                "/auth/input", self.input, "Give code or password", body=LoginInput, status=202, errors=(409,), **login
            ),
            post("/auth/cancel", self.cancel, "End a log-in", errors=(409,), **login),
            get("/session", self.session, "Whether the account is logged in and connected", answer=Success[Session]),
            get("/recovery", self.recovery, "How far gap recovery is", answer=Success[Recovery]),
            get("/sync-messages", self.sync_progress, "How far a backfill is", **sync),
            post(
                "/sync-messages",
                self.sync,
                "Read messages from Telegram's history again",
                scope=Scope.WRITE,
                body=SyncRequest,
                status=202,
                errors=(409,),
                **sync,
            ),
            post(
                "/push/replay",
                self.push_replay,
                "Push again what push addresses have refused",
                scope=Scope.WRITE,
                body=PushReplay,
                errors=(404,),
                **sync,
            ),
            post(
                "/actions/reload",
                self.reload,
                "Have the gateway look at the registry; it does so by itself every few seconds",
                scope=Scope.WRITE,
                **sync,
            ),
            get(
                "/photos/{channelId}/{messageId}",
                self.photo,
                "A message's photo",
                params=(CHANNEL, MESSAGE),
                media=("image/jpeg",),
                errors=(404, 503),
            ),
        )

    def _asked(self, request: Request) -> GatewayClient:
        """The gateway that `request` means. Raises ApiError 422."""
        if not self._client.accounts:
            return self._client
        query = Query(request.query_params)
        name = self._account.of(query)
        query.finish()
        return self._client.of(name or "")

    async def login(self, request: Request) -> Response:
        """How it is."""
        return success(_login(await self._asked(request).json("GET", "/login")))

    async def start(self, request: Request) -> Response:
        """Begin."""
        gateway = self._asked(request)
        body = await params.body(request, LoginStart)
        if (body.phone is None) == (body.bot_token is None):
            raise invalid([FieldError("phone", "or botToken is needed, one of the two")])
        given = {"phone": body.phone} if body.phone else {"botToken": body.bot_token}
        return success(_login(await gateway.json("POST", "/login", given)), 202)

    async def input(self, request: Request) -> Response:
        """Give what is waited for."""
        gateway = self._asked(request)
        body = await params.body(request, LoginInput)
        return success(_login(await gateway.json("POST", "/login/input", body)), 202)

    async def cancel(self, request: Request) -> Response:
        """End it."""
        return success(_login(await self._asked(request).json("DELETE", "/login")))

    async def session(self, request: Request) -> Response:
        """As the gateway's health says."""
        health = await self._asked(request).health()
        return success(msgspec.convert(health, Session))

    async def recovery(self, request: Request) -> Response:
        """As the gateway's health says."""
        health = await self._asked(request).health()
        gaps = health.get("gaps", [])  # an older gateway does not name them
        return success(Recovery(health["recovering"], gaps, health["recovery"], health["sync"], health["floodWaits"]))

    async def sync_progress(self, request: Request) -> Response:
        """The backfill that runs, or the last one."""
        return success(await self._asked(request).json("GET", "/sync-messages"))

    async def sync(self, request: Request) -> Response:
        """Begin a backfill."""
        gateway = self._asked(request)
        body = await params.body(request, SyncRequest, may_be_empty=True)
        channels = [given_channel(channel) for channel in body.channels]
        wanted = {"limit": body.limit, "channels": channels, "concurrency": body.concurrency}
        return success(await gateway.json("POST", "/sync-messages", wanted), 202)

    async def push_replay(self, request: Request) -> Response:
        """As long as there is something to push, but a minute at most."""
        gateway = self._asked(request)
        body = await params.body(request, PushReplay, may_be_empty=True)
        given = {"address": body.address} if body.address else {}
        answer = await gateway.ask("POST", "/push/replay", given, PATIENCE_SECONDS)
        return success(msgspec.json.decode(answer.content))

    async def reload(self, request: Request) -> Response:
        """How many channels it takes now."""
        health = await self._asked(request).health()
        return success({"reloaded": True, "channels": health["channels"]})

    async def photo(self, request: Request) -> Response:
        """The JPEG, which may have to come from Telegram first."""
        channel, message = CHANNEL.in_path(request), MESSAGE.in_path(request)

        async def look(connection: Connection) -> tuple[bool, str]:
            cursor = await connection.execute(_PHOTO, {"channel": channel, "message": message})
            found: tuple[bool, str] | None = await cursor.fetchone()
            return found or (False, "")

        erased, account = await transaction(self._pool, look)
        if erased:
            raise not_found(f"A photo of message {message} of channel {channel}")
        path = f"/photo/{channel}/{message}"
        answer = await self._client.of(account).ask("GET", path, timeout=PATIENCE_SECONDS)
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(answer.content, media_type="image/jpeg", headers=headers)


def _login(state: Any) -> Login:
    login = msgspec.convert(state, Login)
    if login.finished_at is not None:
        login.exit_code = 0 if login.status == "completed" else 1
    login.logs = [login.message]
    return login

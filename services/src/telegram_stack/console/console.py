"""The console as a whole: its pages, signing in and out, the files that browsers need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from telegram_stack.api.config import ApiConfig
from telegram_stack.api.errors import not_found
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.operation import Guard, Operation
from telegram_stack.api.tokens import Token, find
from telegram_stack.console import account, channels, failures, messages
from telegram_stack.console.asking import Asking
from telegram_stack.console.door import SIGN_IN, Door, Visit, sent
from telegram_stack.console.overview import Overview
from telegram_stack.console.rendering import Rendering
from telegram_stack.console.session import COOKIE, Sessions
from telegram_stack.console.stages import Stages

STREAM = "/api/messages/stream"


class Console:
    """Pages over `operations`; `tokens` are those of the API."""

    def __init__(
        self,
        config: ApiConfig,
        operations: Iterable[Operation],
        tokens: tuple[Token, ...],
        guard: Guard,
        gateway: GatewayClient,
    ) -> None:
        self._tokens = tokens
        self._guard = guard
        self._sessions = Sessions(tokens, config.console_session_hours * 3600)
        self._asking = Asking(operations)
        self._stages = Stages(gateway, config.worker)
        self._pages = (
            Overview(config, self._stages).page, channels.PAGE, messages.PAGE, failures.PAGE, account.PAGE,
        )  # fmt: skip
        self._rendering = Rendering(self._pages)
        self._door = Door(guard, self._sessions, self._asking, self._rendering)

    def routes(self) -> list[BaseRoute]:
        """All of them; the one of ``/`` is for browsers only."""
        door = self._door
        return [
            *map(door.page, self._pages),
            door.visit("/console/stream", self._stream, ("GET",)),
            door.open(SIGN_IN, self._sign_in, ("GET", "POST")),
            door.open("/console/sign-out", self._sign_out, ("POST",)),
            door.open("/console/static/{name}", self._file, ("GET",)),
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watches the stages as long as the program runs."""
        watching = asyncio.create_task(self._stages.watch(), name="console-stages")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _sign_in(self, request: Request) -> Response:
        """A token for a cookie. Guesses are counted by address."""
        if request.method == "GET":
            return self._rendering.page("sign_in.html", request, problem=None)
        address = request.client.host if request.client else "unknown"
        self._guard.admit(request, f"address {address}")
        form = await sent(request)
        token = find(self._tokens, next(iter(form.get("token", ())), "").strip())
        if token is None:
            problem = "This token is not known. Copy it anew from the secrets file, without spaces or line ends."
            return self._rendering.page("sign_in.html", request, 401, problem=problem)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE,
            self._sessions.cookie(token),
            max_age=self._sessions.seconds,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        await sent(request)
        response = RedirectResponse(SIGN_IN, 303)
        response.delete_cookie(COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict")
        return response

    async def _stream(self, visit: Visit) -> Response:
        """The API's live stream, for who has a cookie instead of a token."""
        return await self._asking.stream(visit.token, STREAM, visit.request)

    async def _file(self, request: Request) -> Response:
        found = self._rendering.file(request.path_params["name"])
        if found is None:
            raise not_found("This file")
        return found

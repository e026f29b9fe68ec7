"""The API's operations, asked from within: same guard, same checks, same words, no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from telegram_stack.api.answers import Success
from telegram_stack.api.errors import ApiError
from telegram_stack.api.operation import Operation, answered, permit
from telegram_stack.api.tokens import Token


@dataclass(frozen=True)
class Part:
    """A part of a page: its data, or why there is none."""

    data: Any = None
    problem: str | None = None


class Asking:
    """Calls `operations` by method and path, as the client of a token."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = {(operation.method, operation.path): operation for operation in operations}

    async def ask(
        self,
        token: Token,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: object = None,
        within: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer, as the type that the operation documents. `within` are the path's parameters.

        Raises ApiError as the API would answer, 503 included.
        """
        operation = self._operations[method, path]
        permit(token, operation.scope)
        content = b"" if body is None else msgspec.json.encode(body)

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": urlencode(given, doseq=True).encode(),
            "headers": [],
            "path_params": dict(within or {}),
        }
        request = Request(scope, receive)
        request.state.token = token
        return msgspec.json.decode((await answered(operation.endpoint, request)).body, type=operation.answer)

    async def part(self, token: Token, method: str, path: str, **given: Any) -> Part:
        """As `ask`, but a refusal is a part of the page."""
        try:
            found = await self.ask(token, method, path, **given)
        except ApiError as error:
            return Part(problem=error.message)
        return Part(found.data if isinstance(found, Success) else found)

    async def stream(self, token: Token, path: str, request: Request) -> Response:
        """The browser's own request, for an answer that does not end."""
        operation = self._operations["GET", path]
        permit(token, operation.scope)
        return await answered(operation.endpoint, request)

"""The ASGI application: every operation behind its guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from telegram_stack.api.answers import http_error, unexpected
from telegram_stack.api.health import Health
from telegram_stack.api.messages import Messages
from telegram_stack.api.operation import Guard, Operation
from telegram_stack.api.registry import Registry
from telegram_stack.api.service import Service
from telegram_stack.api.tokens import Token
from telegram_stack.database import Pool


class Api:
    """The operations over one pool. `consumer` is the one whose processing state is shown."""

    def __init__(self, pool: Pool, tokens: tuple[Token, ...], health: Health, consumer: str) -> None:
        self._guard = Guard(tokens)
        self.operations: list[Operation] = [
            *Service(health).operations(),
            *Messages(pool, consumer).operations(),
            *Registry(pool).operations(),
        ]

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[self._guard.route(operation) for operation in self.operations],
            exception_handlers={HTTPException: http_error, Exception: unexpected},
        )

"""The ASGI application: every operation behind its guard, and the console."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from telegram_stack.api.answers import http_error, unexpected
from telegram_stack.api.cached import Answers
from telegram_stack.api.changes import Changes
from telegram_stack.api.config import ApiConfig
from telegram_stack.api.dashboards import Dashboards
from telegram_stack.api.docs import Docs
from telegram_stack.api.erasure import Erasures
from telegram_stack.api.export import Export
from telegram_stack.api.failures import Failures
from telegram_stack.api.gateway import Gateway
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.health import Health
from telegram_stack.api.history import History
from telegram_stack.api.limits import RateLimit
from telegram_stack.api.messages import Messages
from telegram_stack.api.middleware import SecurityHeaders
from telegram_stack.api.operation import Guard, Operation
from telegram_stack.api.registry import Registry
from telegram_stack.api.search import Search
from telegram_stack.api.service import Service
from telegram_stack.api.stream import Stream
from telegram_stack.api.tokens import HEADERS, Token
from telegram_stack.cache import CacheClient
from telegram_stack.console.console import Console
from telegram_stack.database import Pool


class Api:
    """The operations over one pool, and over a cache where there is one."""

    def __init__(
        self,
        config: ApiConfig,
        pool: Pool,
        tokens: tuple[Token, ...],
        health: Health,
        *,
        cache: CacheClient | None = None,
        gateway: GatewayClient | None = None,
    ) -> None:
        """`gateway` defaults to one as `config` says."""
        client = gateway or GatewayClient(config.gateway)
        self._config = config
        self._guard = Guard(tokens, RateLimit(config.rate_limit), config.rate_limit_exempt)
        answers = Answers(pool, cache)
        self.operations: list[Operation] = [
            *Service(health).operations(),
            *Search(answers, config.consumer).operations(),
            *Export(pool, config.consumer).operations(),
            *Stream(pool, config.consumer).operations(),
            *Messages(pool, answers, config.consumer).operations(),
            *Changes(pool, config.consumer).operations(),
            *History(pool).operations(),
            *Registry(pool).operations(),
            *Erasures(pool, cache, client, config.consumer).operations(),
            *Failures(pool).operations(),
            *Dashboards(config, pool, client).operations(),
            *Gateway(client, pool).operations(),
        ]
        self.operations += Docs(self.operations).operations()
        self._console = Console(config, self.operations, tokens, self._guard, client)

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[*self._console.routes(), *(self._guard.route(operation) for operation in self.operations)],
            lifespan=lambda _app: self._console.running(),
            middleware=[Middleware(SecurityHeaders), *self._cors()],
            exception_handlers={HTTPException: http_error, Exception: unexpected},
        )

    def _cors(self) -> list[Middleware]:
        if not self._config.cors_origins:
            return []
        return [
            Middleware(
                CORSMiddleware,
                allow_origins=self._config.cors_origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=[*HEADERS, "Authorization", "Content-Type", "If-None-Match", "Last-Event-ID"],
                expose_headers=["ETag", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"],
                max_age=600,
            )
        ]

"""The worker's health: what it stands on, and whether it can work without what is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telegram_stack import program
from telegram_stack.cache import CacheUnavailableError
from telegram_stack.database import DatabaseUnavailableError, Pool, ping

if TYPE_CHECKING:
    from telegram_stack.cache import CacheClient
    from telegram_stack.worker.config import WorkerConfig
    from telegram_stack.worker.state import Link


class Health:
    """Nothing works without the database, nor mode ``queue`` without its queue; anything else away only slows it."""

    def __init__(
        self, config: WorkerConfig, pool: Pool, database: Link, queue: Link | None, cache: CacheClient | None
    ) -> None:
        self._config = config
        self._pool = pool
        self._database = database
        self._queue = queue
        self._cache = cache

    async def state(self) -> dict[str, Any]:
        """The answer of ``/health``."""
        components = {"database": _component(await self._database_reason())}
        if self._queue:
            components["queue"] = _component(self._queue.reason)
        if self._cache:
            components["cache"] = {**_component(await self._cache_reason()), "breaker": self._cache.state}
        away = {name for name, component in components.items() if component["status"] != "healthy"}
        vital = {"database", "queue"} if self._config.mode == "queue" else {"database"}
        return {
            "status": "unhealthy" if away & vital else "degraded" if away else "healthy",
            "service": "telegram-signal-worker",
            "version": program.version(),
            "mode": self._config.mode,
            "consumer": self._config.consumer,
            "components": components,
        }

    async def _database_reason(self) -> str | None:
        try:
            await ping(self._pool)
        except DatabaseUnavailableError as error:
            return str(error)
        return self._database.reason if self._database.reason != "not yet connected" else None

    async def _cache_reason(self) -> str | None:
        if self._cache is None:
            return None
        try:
            await self._cache.call(lambda redis: redis.ping())
        except CacheUnavailableError as error:
            return str(error)
        return None


def _component(reason: str | None) -> dict[str, str]:
    return {"status": "unhealthy", "reason": reason} if reason else {"status": "healthy"}

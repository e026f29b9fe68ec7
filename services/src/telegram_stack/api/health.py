"""The health of what the API stands on and beside: database, cache, gateway, queue."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisError

from telegram_stack.api.config import ApiConfig, CacheConfig
from telegram_stack.cache import open_primary
from telegram_stack.database import DatabaseUnavailableError, Pool, ping

Status = Literal["healthy", "degraded", "unhealthy"]

Check = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, else a few words; raises `UnhealthyError` when nothing works."""

_TIMEOUT = 5.0

_ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Whether something answers is all that is asked, so its certificate says nothing."""
_ANYBODY.check_hostname = False
_ANYBODY.verify_mode = ssl.CERT_NONE


class UnhealthyError(Exception):
    """The component does not do its work."""


class Component(msgspec.Struct, rename="camel", omit_defaults=True):
    """One component's state. `latency_ms` is the time the check took."""

    status: Status
    latency_ms: float
    reason: str | None = None


class Health:
    """Asks all components at once. Without its database the API is unhealthy, without anything else degraded."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    async def components(self) -> dict[str, Component]:
        """Each component's state now; takes 5 s at most."""
        states = await asyncio.gather(*(_examine(check) for check in self._checks.values()))
        return dict(zip(self._checks, states, strict=True))


def overall(components: Mapping[str, Component]) -> Status:
    """The API's own state."""
    if components["database"].status == "unhealthy":
        return "unhealthy"
    return "healthy" if all(item.status == "healthy" for item in components.values()) else "degraded"


async def _examine(check: Check) -> Component:
    started = time.perf_counter()
    status: Status = "healthy"
    try:
        async with asyncio.timeout(_TIMEOUT):
            reason = await check()
        if reason:
            status = "degraded"
    except (UnhealthyError, DatabaseUnavailableError) as error:
        status, reason = "unhealthy", str(error)
    except TimeoutError:
        status, reason = "unhealthy", f"no answer within {_TIMEOUT:g} s"
    return Component(status, round((time.perf_counter() - started) * 1000, 2), reason)


def checks(config: ApiConfig, pool: Pool) -> dict[str, Check]:
    """The checks that `config` asks for; raises ConfigError when a secret cannot be read."""

    async def database() -> str | None:
        await ping(pool)
        return None

    async def gateway() -> str | None:
        code, text = await http_get(config.gateway.host, config.gateway.port, "/health", config.gateway.timeout)
        return _gateway_state(code, text)

    async def queue() -> str | None:
        code, _ = await http_get(config.queue.host, config.queue.metrics_port, "/metrics", config.queue.timeout)
        if code != 200:
            raise UnhealthyError(f"its metrics port answers {code}")
        return None

    found: dict[str, Check] = {"database": database, "cache": cache_check(config.cache), "gateway": gateway}
    return found | {"queue": queue} if config.queue.enabled else found


def cache_check(config: CacheConfig) -> Check:
    """Whether the sentinels know a primary, and it answers."""
    primary = open_primary(config).redis

    async def cache() -> str | None:
        try:
            await primary.ping()
        except MasterNotFoundError as error:
            sentinels = ", ".join(config.sentinels)
            raise UnhealthyError(f"no sentinel ({sentinels}) names a primary of {config.sentinel_name}") from error
        except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop's for a connection that was reset
            raise UnhealthyError(f"the primary: {str(error) or type(error).__name__}") from error
        return None

    return cache


def _gateway_state(code: int, text: bytes) -> str | None:
    """The gateway's own word about itself."""
    try:
        answer: Any = msgspec.json.decode(text)
        status = str(answer["status"])
        causes = "; ".join(str(cause) for cause in answer.get("causes", ()))
        reason = f"{status}: {causes}" if causes else status
    except (msgspec.DecodeError, KeyError, TypeError):
        raise UnhealthyError(f"answers {code} without a status") from None
    if code != 200:
        raise UnhealthyError(reason)
    return None if status == "healthy" else reason


async def http_get(
    host: str,
    port: int,
    path: str,
    timeout: float,  # noqa: ASYNC109
    *,
    tls: bool = False,
) -> tuple[int, bytes]:
    """Status code and body of a GET; raises UnhealthyError when there is no answer within `timeout` seconds.

    Not by httpx, as `GatewayClient` asks: of a port where nothing listens httpx says "All connection attempts failed",
    whatever the reason, and the reason is what an operator wants to read here.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=_ANYBODY if tls else None)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head, _, content = (await reader.read(-1)).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split(b" ", 2)[1]), content
    except TimeoutError:
        raise UnhealthyError(f"{host}:{port} does not answer within {timeout:g} s") from None
    except OSError as error:
        # asyncio's own words for a refusal have the address twice.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UnhealthyError(f"{host}:{port}: {reason}") from error
    except (IndexError, ValueError):
        raise UnhealthyError(f"{host}:{port} does not speak HTTP") from None

"""Redis behind Sentinel: one configuration, one client, one circuit breaker for whoever reads the cache.

The cache is never the only copy: who cannot read it asks the database instead, at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from telegram_stack.config import read_secret

_log = logging.getLogger(__name__)

T = TypeVar("T")

Address = Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):[0-9]{1,5}$")]
State = Literal["closed", "half-open", "open"]

_NUMBERS: dict[State, int] = {"closed": 0, "half-open": 1, "open": 2}

BREAKER = Gauge(
    "telegram_cache_breaker_state", "0 closed: the cache is asked, 1 half-open: one call is trying, 2 open: not asked"
)
FAILURES = Counter("telegram_cache_failures_total", "Calls of the cache that failed or took too long")


class CacheUnavailableError(Exception):
    """The cache was not asked, or did not answer in time. The database has everything."""


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[cache]``: Redis, whose primary the sentinels know.

    `sentinels` are ``host:port``. `sentinel_user` and `sentinel_password_file` are for sentinels that ask for them.
    `timeout` is in seconds, for a connection and for each answer: a slow cache is worse than none.
    """

    user: str
    password_file: str = "redis-password"  # noqa: S105 - a file name
    sentinels: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1)] = ("127.0.0.1:26379",)
    sentinel_name: str = "telegram"
    sentinel_user: str | None = None
    sentinel_password_file: str | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0.02, le=60)] = 0.05


@dataclass(frozen=True)
class Primary:
    """A client of the primary that the sentinels name; they are asked again at each new connection."""

    redis: Redis
    sentinels: Sequence[Redis]

    async def close(self) -> None:
        """Close all connections."""
        for client in (self.redis, *self.sentinels):
            await client.aclose()


def connect(config: CacheConfig, password: str, sentinel_password: str | None) -> Primary:
    """A client that never tries twice: who calls it knows better when to. Connects with its first command."""
    limits: dict[str, Any] = {
        "socket_timeout": config.timeout,
        "socket_connect_timeout": config.timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [_address(address) for address in config.sentinels],
        sentinel_kwargs={**limits, "username": config.sentinel_user, "password": sentinel_password},
        **limits,
        username=config.user,
        password=password,
    )
    return Primary(sentinel.master_for(config.sentinel_name), sentinel.sentinels)


def open_primary(config: CacheConfig) -> Primary:
    """As `connect`, with the secrets that `config` names; raises ConfigError when one cannot be read."""
    sentinel_password = read_secret(config.sentinel_password_file) if config.sentinel_password_file else None
    return connect(config, read_secret(config.password_file), sentinel_password)


Command = tuple[str | float, ...]
"""A command's name and arguments. Bodies are text here: what unpacks them in Redis knows no bytes."""

_EACH = "for _, command in ipairs(cmsgpack.unpack(ARGV[1])) do redis.call(unpack(command)) end"


async def run_all(redis: Redis, commands: Sequence[Command]) -> None:
    """Run `commands` in their order; raises RedisError at the first that fails, as the client's own methods do.

    They go as one: what this side spends on a command and its answer is many times what Redis needs to run it.
    """
    await redis.register_script(_EACH)(args=[msgspec.msgpack.encode(commands)])


def words(error: BaseException) -> str:
    """What failed, in a line."""
    if isinstance(error, MasterNotFoundError):
        return "no sentinel that answers knows a primary"
    return str(error) or type(error).__name__


class Breaker:
    """Spares a server that fails, and those who would wait for it.

    Closed: everybody asks. After `failures` in a row it is open: nobody asks for `rest` seconds. Then it is half-open:
    one call tries, whose result closes or opens it again.
    """

    def __init__(self, failures: int = 3, rest: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._opened = 0.0
        self.state: State = "closed"

    def admits(self) -> bool:
        """Whether to ask now. Who gets True tells by `succeeded` or `failed` how it went."""
        if self.state == "open" and self._clock() - self._opened >= self._rest:
            self._become("half-open")
            return True
        return self.state == "closed"

    def succeeded(self) -> None:
        """The call was answered."""
        self._failures = 0
        self._become("closed")

    def failed(self) -> None:
        """The call was not."""
        self._failures += 1
        if self.state == "half-open" or self._failures >= self._limit:
            self._opened = self._clock()
            self._become("open")

    def _become(self, state: State) -> None:
        self.state = state
        BREAKER.set(_NUMBERS[state])


class CacheClient:
    """Calls of the cache through one breaker. `reason` says why the last one failed, None when it did not."""

    def __init__(self, primary: Primary, breaker: Breaker) -> None:
        self._primary = primary
        self._breaker = breaker
        self.reason: str | None = None

    @property
    def state(self) -> State:
        """The breaker's."""
        return self._breaker.state

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """What `work` makes of the primary. Raises CacheUnavailableError."""
        if not self._breaker.admits():
            raise CacheUnavailableError(f"not asked: {self.reason}")
        try:
            result = await work(self._primary.redis)
        # RuntimeError is uvloop's word for a write to a connection that was reset while it was made.
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            self._fail(words(error))
            raise CacheUnavailableError(words(error)) from error
        except BaseException:  # or a cancelled call would leave the breaker half-open for ever
            self._fail("the call was given up")
            raise
        self._breaker.succeeded()
        if self.reason is not None:
            _log.info("the cache is available")
        self.reason = None
        return result

    def _fail(self, reason: str) -> None:
        FAILURES.inc()
        self._breaker.failed()
        if self.reason is None:
            _log.warning("the cache is unavailable: %s", reason)
        self.reason = reason

    async def close(self) -> None:
        """Close all connections."""
        await self._primary.close()


def open_cache(config: CacheConfig) -> CacheClient:
    """A client as `config` says; raises ConfigError when a secret cannot be read."""
    return CacheClient(open_primary(config), Breaker())


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)

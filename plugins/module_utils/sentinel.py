"""What the sentinel modules share: their options, the connection, and the reading of Sentinel's replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import redis
except ImportError:  # said in one sentence by `require_library`
    redis = None  # type: ignore[assignment]

DEFAULT_PORT = 26379
_DOWN_FLAGS = {"s_down", "o_down", "disconnected"}


class SentinelError(Exception):
    """A sentinel could not answer, refused, or contradicts another; the text says which and what to do."""


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """Read ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address; raises SentinelError for anything else."""
    host, port = text.strip(), str(default_port)
    if host.startswith("["):
        host, _bracket, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _colon, port = host.partition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SentinelError(f"{text!r} is no address of a sentinel; write host, host:port or [address]:port.")
    return Address(host, int(port))


def pairs(reply: Any) -> dict[str, str]:
    """One of Sentinel's flat ``name, value, …`` lists as a dictionary (RESP3 sends one already)."""
    if isinstance(reply, Mapping):
        return {str(key): str(value) for key, value in reply.items()}
    values = [str(value) for value in reply]
    return dict(zip(values[::2], values[1::2], strict=True))


def is_up(fields: Mapping[str, str]) -> bool:
    """Whether the sentinel that reported `fields` reaches the server they describe."""
    return not _DOWN_FLAGS & set(fields.get("flags", "").split(","))


def address_of(fields: Mapping[str, str]) -> Address:
    """Address of the server that `fields` describe."""
    return Address(fields["ip"], int(fields["port"]))


def describe_replica(fields: Mapping[str, str]) -> dict[str, Any]:
    """What a play wants to know about a replica."""
    address = address_of(fields)
    return {
        "address": address.host,
        "port": address.port,
        "reachable": is_up(fields),
        "link_up": fields.get("master-link-status") == "ok",
        "priority": int(fields.get("slave-priority", "100")),
        "offset": int(fields.get("slave-repl-offset", "0")),
    }


def agreed_primary(name: str, answers: Mapping[Address, Address]) -> Address:
    """The one primary that every sentinel in `answers` names; raises SentinelError when they differ."""
    if len(set(answers.values())) == 1:
        return next(iter(answers.values()))
    said = ", ".join(f"{sentinel} says {primary}" for sentinel, primary in answers.items())
    raise SentinelError(
        f"The sentinels disagree on the primary of {name}: {said}. "
        "A fail-over may be under way: try again in some seconds. "
        f"If it stays so, run 'SENTINEL RESET {name}' on the sentinel that is wrong."
    )


def differing(current: Mapping[str, str], wanted: Mapping[str, int | None]) -> dict[str, int]:
    """The settings of `wanted` that are given and differ from `current`."""
    return {key: value for key, value in wanted.items() if value is not None and current.get(key) != str(value)}


def argument_spec(**options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`options` together with those that every sentinel module has (documented in the fragment `sentinel`)."""
    return {
        "name": {"type": "str", "required": True},
        "port": {"type": "int", "default": DEFAULT_PORT},
        "login_user": {"type": "str"},
        "login_password": {"type": "str", "no_log": True},
        "timeout": {"type": "float", "default": 2.0},
        **options,
    }


def require_library(module: AnsibleModule) -> None:
    """Leave with a sentence when the Redis library is missing on the host."""
    if redis is None:
        module.fail_json(msg=f"{missing_required_lib('redis')} On Debian: apt-get install python3-redis")


class Sentinel:
    """A connection to one sentinel. Every method raises SentinelError in words that name the sentinel."""

    def __init__(self, address: Address, user: str | None, password: str | None, timeout: float) -> None:
        self.address = address
        client = redis.Redis(
            host=address.host,
            port=address.port,
            username=user,
            password=password,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            decode_responses=True,
        )
        self._execute: Callable[..., Any] = client.execute_command
        self.close: Callable[[], None] = client.close

    @classmethod
    def of_module(cls, address: Address, params: Mapping[str, Any]) -> Sentinel:
        """The connection to `address` with the log-in and time limit of a module's parameters."""
        return cls(address, params["login_user"], params["login_password"], params["timeout"])

    def primary(self, name: str) -> dict[str, str] | None:
        """What the sentinel knows of the primary `name`, or None when it does not watch it."""
        reply = self._command("MASTER", name, tolerate="No such master with that name")
        return None if reply is None else pairs(reply)

    def replicas(self, name: str) -> list[dict[str, str]]:
        """What the sentinel knows of the replicas of `name`."""
        return [pairs(row) for row in self._command("REPLICAS", name)]

    def has_quorum(self, name: str) -> bool:
        """Whether enough sentinels see each other to decide and carry out a fail-over of `name`."""
        return self._command("CKQUORUM", name, tolerate="NOQUORUM") is not None

    def monitor(self, name: str, primary: Address, quorum: int) -> None:
        """Begin to watch `primary` under `name`."""
        self._command("MONITOR", name, primary.host, primary.port, quorum)

    def set(self, name: str, settings: Mapping[str, int | str]) -> None:
        """Change settings of `name`."""
        self._command("SET", name, *[word for item in settings.items() for word in item])

    def remove(self, name: str) -> None:
        """Watch `name` no more."""
        self._command("REMOVE", name)

    def _command(self, verb: str, *words: str | int, tolerate: str | None = None) -> Any:
        try:
            return self._execute("SENTINEL", verb, *words)
        except redis.exceptions.AuthenticationError as error:
            raise SentinelError(
                f"The sentinel {self.address} refuses the log-in: {error}. Check login_user and login_password."
            ) from error
        except redis.exceptions.ConnectionError as error:
            raise SentinelError(
                f"The sentinel {self.address} cannot be reached: {error}. See 'systemctl status' of it on that host."
            ) from error
        except redis.exceptions.TimeoutError as error:
            raise SentinelError(f"The sentinel {self.address} did not answer in time: {error}.") from error
        except redis.exceptions.ResponseError as error:
            if tolerate is not None and tolerate in str(error):
                return None
            raise SentinelError(f"The sentinel {self.address} refuses SENTINEL {verb}: {error}.") from error


def ask_all(name: str, sentinels: Iterable[Sentinel]) -> dict[Address, dict[str, str]]:
    """What each of `sentinels` knows of the primary `name`; raises SentinelError when one does not watch it."""
    answers = {}
    for sentinel in sentinels:
        fields = sentinel.primary(name)
        if fields is None:
            raise SentinelError(
                f"The sentinel {sentinel.address} does not watch {name}. "
                "Let it, with the module tradingsystem.telegram_stack.sentinel_monitor."
            )
        answers[sentinel.address] = fields
    return answers

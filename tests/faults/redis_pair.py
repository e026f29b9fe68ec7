"""Two Redis servers and a sentinel, each behind a link: what the sentinel announces are the links."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from tests.faults.links import Link, Links
from tests.faults.supervisor import Program, Supervisor
from tests.integration.brokers import USER
from tests.integration.servers import free_port, wait_until

NAME = "telegram"
_SERVER_RESTART = 15.0
"""As the role sets it: longer than a fail-over, or an empty primary would wipe its replica."""
_DOWN_AFTER_MS, _FAILOVER_MS = 5000, 10000


@dataclass
class RedisPair:
    """The servers by name, ``redis-1`` being the first primary, and how to ask the sentinel."""

    password: str
    servers: dict[str, Program]
    links: dict[str, Link]
    sentinel: Program
    sentinel_port: int

    def primary(self) -> str:
        """The server that the sentinel names. Raises redis.RedisError when it does not answer."""
        with redis.Redis(port=self.sentinel_port, decode_responses=True, socket_timeout=2) as asked:
            _, port = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(name for name, link in self.links.items() if link.port == int(port))

    def _other(self, primary: str) -> int:
        return next(link.port for name, link in self.links.items() if name != primary)

    def replicated(self) -> bool:
        """Whether the primary answers and the other server follows it."""
        try:
            link = self.links[self.primary()]
            with redis.Redis(port=link.target, username=USER, password=self.password, socket_timeout=2) as client:
                found = client.info("replication")
        except (redis.RedisError, OSError):
            return False
        return bool(found["role"] == "master" and found.get("slave0", {}).get("state") == "online")

    def can_fail_over(self) -> bool:
        """Whether the sentinel, which looks each 10 s, knows that the other server follows."""
        try:
            primary = self.primary()
            with redis.Redis(port=self.sentinel_port, decode_responses=True, socket_timeout=2) as asked:
                known = asked.sentinel_slaves(NAME)
        except (redis.RedisError, OSError):
            return False
        return any(item["port"] == self._other(primary) and _good(item) for item in known)


def _good(replica: dict[str, Any]) -> bool:
    down = replica["is_sdown"] or replica["is_disconnected"]
    return bool(replica["is_slave"] and not down and replica["master-link-status"] == "ok")


def redis_pair(folder: Path, supervisor: Supervisor, links: Links) -> RedisPair:
    """Start them in `folder`; they end with `supervisor`."""
    password = secrets.token_hex(8)
    ports = {"redis-1": free_port(), "redis-2": free_port()}
    ways = {name: links.to(port) for name, port in ports.items()}
    servers = {}
    for name, port in ports.items():
        (folder / name).mkdir(parents=True)
        config = folder / f"{name}.conf"
        config.write_text(
            f'bind 127.0.0.1\nport {port}\ndir {folder / name}\nsave ""\nrepl-diskless-sync-delay 0\n'
            f"replica-announce-ip 127.0.0.1\nreplica-announce-port {ways[name].port}\n"
            f"masteruser peer\nmasterauth {password}\nuser default off\n"
            f"user {USER} on >{password} ~telegram:* resetchannels +@all\n"
            f"user telegram_api on >{password} ~telegram:* ~api:* resetchannels +@all\n"
            f"user peer on >{password} allchannels ~* +@all\n"
            + (f"replicaof 127.0.0.1 {ways['redis-1'].port}\n" if name != "redis-1" else "")
        )
        servers[name] = supervisor.add(
            Program(name, ["redis-server", config], folder / f"{name}.log", restart_seconds=_SERVER_RESTART)
        )
    sentinel_port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {sentinel_port}\ndir {folder}\n"
        f"sentinel monitor {NAME} 127.0.0.1 {ways['redis-1'].port} 1\n"
        f"sentinel auth-user {NAME} peer\nsentinel auth-pass {NAME} {password}\n"
        f"sentinel down-after-milliseconds {NAME} {_DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} {_FAILOVER_MS}\n"
    )
    sentinel = supervisor.add(Program("sentinel", ["redis-sentinel", config], folder / "sentinel.log"))
    pair = RedisPair(password, servers, ways, sentinel, sentinel_port)
    wait_until(lambda: _answers(sentinel_port) and pair.replicated())
    return pair


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=2) as asked:
            return bool(asked.ping())
    except (redis.RedisError, OSError):
        return False

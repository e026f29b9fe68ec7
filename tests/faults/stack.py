"""The whole chain, each part a real process behind links and on disks that a fault can take away.

simulator -> gateway (spool) -> PgBouncer -> PostgreSQL        API -> PgBouncer
                             -> RabbitMQ  -> worker -> PgBouncer
                             -> Sentinel, Redis primary and replica
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from tests.faults.disks import Disk, can_mount, disk
from tests.faults.links import Link, Links
from tests.faults.redis_pair import NAME, RedisPair, redis_pair
from tests.faults.supervisor import Program, Supervisor
from tests.integration import brokers, programs
from tests.integration.poolers import pgbouncer
from tests.integration.servers import Postgres, free_port, postgres, wait_until

CHANNELS = 20
TOKEN = "made-up-for-the-fault-suite"
PENDING_LIMIT = 800
"""Events the gateway keeps in memory while its disk is full: here little, so that a row reaches the limit."""

_DISKS_MB = {"gateway": 128, "postgresql": 700, "rabbitmq": 1200}


@dataclass
class Stack:
    """Everything that runs. `links` by client and server, `disks` by component (none where nothing can be mounted)."""

    supervisor: Supervisor
    database: Postgres
    broker: brokers.Broker
    cache: RedisPair
    links: dict[str, Link]
    disks: dict[str, Disk]
    telegram: Path
    control: str
    gateway: str
    worker: str
    api: str

    def program(self, component: str) -> Program:
        """The process of a component; of ``redis`` the one that is the primary now."""
        return self.supervisor.programs[self.cache.primary() if component == "redis" else component]


def needs() -> str | None:
    """What this machine lacks for the suite; None when nothing."""
    missing = [
        name
        for name, there in (("RabbitMQ", brokers.rabbitmq_installed()), ("Redis", brokers.redis_installed()))
        if not there
    ]
    if not can_mount():
        missing.append("the right to mount a disk image (root, /dev/loop-control)")
    return f"the fault suite needs {', '.join(missing)}" if missing else None


@contextmanager
def stack(folder: Path, *, metrics: bool = False) -> Iterator[Stack]:
    """Start everything in `folder`, which other users can enter; end everything. With `metrics` RabbitMQ serves its."""
    with ExitStack() as resources:
        disks = {name: resources.enter_context(disk(folder / f"{name}-disk", size)) for name, size in _DISKS_MB.items()}
        for small in disks.values():
            small.folder.chmod(0o755)
        links = Links()
        resources.callback(links.close)
        database = resources.enter_context(
            postgres(disks["postgresql"].folder, max_wal_size="64MB", min_wal_size="32MB", max_connections=100)
        )
        broker = resources.enter_context(brokers.rabbitmq(disks["rabbitmq"].folder, metrics=metrics))
        to_server = links.to(database.port)
        pooler = resources.enter_context(pgbouncer(replace(database, port=to_server.port)))
        supervisor = Supervisor()
        resources.callback(supervisor.close)
        assert database.process is not None
        for name, process, seconds in (
            ("postgresql", database.process, 2.0),
            ("rabbitmq", broker.running[-1], 10.0),
            ("pgbouncer", pooler.process, 1.0),
        ):
            supervisor.add(Program.adopt(name, process, folder / f"{name}.log", restart_seconds=seconds))
        cache = redis_pair(folder / "redis", supervisor, links)
        ports = {name: free_port() for name in ("telegram", "control", "gateway", "worker", "api")}
        ways = {
            "gateway-telegram": links.to(ports["telegram"]),
            "gateway-pgbouncer": links.to(pooler.port),
            "gateway-rabbitmq": links.to(broker.port),
            "gateway-sentinel": links.to(cache.sentinel_port),
            "worker-pgbouncer": links.to(pooler.port),
            "worker-rabbitmq": links.to(broker.port),
            "worker-sentinel": links.to(cache.sentinel_port),
            "api-pgbouncer": links.to(pooler.port),
            "api-sentinel": links.to(cache.sentinel_port),
            "pgbouncer-postgresql": to_server,
        }
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        running = Stack(
            supervisor, database, broker, cache, ways, disks, folder / "telegram" / "telegram.sqlite",
            urls["control"], urls["gateway"], urls["worker"], urls["api"],
        )  # fmt: skip
        _start_ours(running, folder, ports)
        yield running


def _start_ours(running: Stack, folder: Path, ports: dict[str, int]) -> None:
    programs.prepare(
        folder,
        {
            "postgres-password": running.database.password,
            "rabbitmq-password": running.broker.password,
            "redis-password": running.cache.password,
            "tokens": f"suite:admin:{TOKEN}",
        },
    )
    _start(
        running, folder, "telegram", "simulator.main",
        "--state", str(folder / "telegram"), "--port", str(ports["telegram"]),
        "--control-port", str(ports["control"]), "--channels", str(CHANNELS),
    )  # fmt: skip
    wait_until(lambda: answers(f"{running.control}/health"), 60)
    _write_configs(running, folder, ports)
    session = httpx.post(f"{running.control}/sessions").json()["session"]
    subprocess.run(
        [*programs.line("gateway.main"), "import-session", "--config", str(folder / "gateway.toml")],
        env=programs.environment(folder), input=session.encode(), check=True, capture_output=True,
    )  # fmt: skip
    _start(running, folder, "gateway", "gateway.main", "--config", str(folder / "gateway.toml"))
    wait_until(lambda: answers(f"{running.gateway}/health"), 60)
    # The first message declares the exchange, which a role does on a host.
    httpx.post(f"{running.control}/messages").raise_for_status()
    wait_until(lambda: httpx.get(f"{running.gateway}/health").json()["sinks"]["queue"]["lag"] == 0, 60)
    _start(running, folder, "worker", "worker.main", "--config", str(folder / "worker.toml"))
    _start(running, folder, "api", "api.main", "--config", str(folder / "api.toml"))
    wait_until(lambda: answers(f"{running.worker}/health") and answers(f"{running.api}/health"), 60)


def _write_configs(running: Stack, folder: Path, ports: dict[str, int]) -> None:
    way = {name: link.port for name, link in running.links.items()}
    key = httpx.get(f"{running.control}/public-key").text
    (folder / "gateway.toml").write_text(
        f'port = {ports["gateway"]}\n[telegram]\napi_id = 1\nsession_file = "{folder}/state/session"\n'
        f'server_address = "127.0.0.1"\nserver_port = {way["gateway-telegram"]}\nserver_dc_id = 2\n'
        f'server_public_key = """\n{key}"""\n'
        f'[spool]\npath = "{running.disks["gateway"].folder}/spool.db"\npending_limit = {PENDING_LIMIT}\n'
        f'[database]\nuser = "telegram_ingest"\nport = {way["gateway-pgbouncer"]}\n'
        f"[queue]\nport = {way['gateway-rabbitmq']}\n"
        f'[cache]\nsentinel_name = "{NAME}"\nsentinels = ["127.0.0.1:{way["gateway-sentinel"]}"]\n'
    )
    (folder / "worker.toml").write_text(
        f'metrics_port = {ports["worker"]}\nmode = "hybrid"\n'
        f'[database]\nuser = "telegram_worker"\nport = {way["worker-pgbouncer"]}\n'
        f'[queue]\nport = {way["worker-rabbitmq"]}\nvhost = "{brokers.VHOST}"\nuser = "{brokers.USER}"\n'
        f'[cache]\nuser = "{brokers.USER}"\nsentinel_name = "{NAME}"\n'
        f'sentinels = ["127.0.0.1:{way["worker-sentinel"]}"]\n'
    )
    (folder / "api.toml").write_text(
        f"rate_limit = 1000000\n"  # the probe asks ten times a second
        f'port = {ports["api"]}\n[database]\nuser = "telegram_api"\nport = {way["api-pgbouncer"]}\n'
        f'[cache]\nuser = "telegram_api"\nsentinel_name = "{NAME}"\nsentinels = ["127.0.0.1:{way["api-sentinel"]}"]\n'
        f"[gateway]\nport = {ports['gateway']}\n[queue]\nenabled = false\n"
    )


def _start(running: Stack, folder: Path, name: str, module: str, *arguments: str) -> None:
    running.supervisor.add(
        Program(
            name, [*programs.line(module), *arguments], folder / f"{name}.log",
            environment=programs.environment(folder), restart_seconds=1.0,
        )
    )  # fmt: skip


def answers(url: str) -> bool:
    """Whether it says that all is well."""
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False

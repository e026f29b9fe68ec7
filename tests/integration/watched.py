"""The whole chain with its exporters and a Prometheus that has the role's jobs and rules: what dashboards are tried on.

`python -m tests.integration.watched MINUTES` keeps one running under load and says where its Prometheus is.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from jinja2 import Environment
from tests.faults.stack import TOKEN, Stack, answers, needs, stack
from tests.faults.supervisor import Program
from tests.integration.brokers import USER, VHOST
from tests.integration.servers import DATABASE, ROOT, free_port, wait_until
from tests.unit import alert_rules

EXPORTERS = ("prometheus", *(f"prometheus-{name}-exporter" for name in ("node", "redis", "postgres")))
SCRAPE_SECONDS = 2


def lacks() -> str | None:
    """What this machine has not; None when it has all."""
    missing = [name for name in EXPORTERS if not Path("/usr/bin", name).exists()]
    return needs() or (f"the watched stack needs {', '.join(missing)}" if missing else None)


@contextmanager
def watched(folder: Path) -> Iterator[tuple[Stack, str]]:
    """Start all of it in `folder`, which other users can enter; the stack, and the address of its Prometheus."""
    with stack(folder, metrics=True) as running:
        ports = {name: free_port() for name in ("prometheus", "node", "redis_exporter", "postgres")}
        textfiles = folder / "textfiles"
        textfiles.mkdir()
        (folder / "credentials" / "pgbouncer_stats").write_text(running.database.password)
        with running.database.connect() as connection:
            connection.execute("GRANT pg_monitor TO telegram_exporter")
        _start_exporters(running, folder, ports, textfiles)
        configure(running, folder, ports)
        _start(
            running, folder, "prometheus", "/usr/bin/prometheus", f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
        )  # fmt: skip
        address = f"http://127.0.0.1:{ports['prometheus']}"
        wait_until(lambda: answers(f"{address}/-/ready"), 60)
        yield running, address


def _start(running: Stack, folder: Path, name: str, *command: str, **environment: str) -> None:
    program = Program(
        name, command, folder / f"{name}.log", environment={"PATH": os.environ["PATH"], **environment}, folder=folder
    )
    running.supervisor.add(program)


def _start_exporters(running: Stack, folder: Path, ports: dict[str, int], textfiles: Path) -> None:
    _start(
        running, folder, "node", "/usr/bin/prometheus-node-exporter", f"--collector.textfile.directory={textfiles}",
        f"--web.listen-address=127.0.0.1:{ports['node']}",
    )  # fmt: skip
    _start(
        running, folder, "redis_exporter", "/usr/bin/prometheus-redis-exporter", "--redis.addr=", "--config-command=-",
        f"--web.listen-address=127.0.0.1:{ports['redis_exporter']}",
        REDIS_USER=USER, REDIS_PASSWORD=running.cache.password,
    )  # fmt: skip
    database = running.database
    _start(
        running, folder, "postgres", "/usr/bin/prometheus-postgres-exporter",
        f"--web.listen-address=127.0.0.1:{ports['postgres']}",
        DATA_SOURCE_NAME=f"postgresql://telegram_exporter:{database.password}@127.0.0.1:{database.port}/{DATABASE}"
        "?sslmode=disable",
    )  # fmt: skip
    pooler = running.links["gateway-pgbouncer"].target
    _start(
        running, folder, "host_metrics", sys.executable, str(ROOT / "roles/monitoring/files/host_metrics.py"),
        str(textfiles / "telegram_host.prom"), str(SCRAPE_SECONDS), "127.0.0.1", str(pooler),
        CREDENTIALS_DIRECTORY=str(folder / "credentials"),
    )  # fmt: skip


def configure(running: Stack, folder: Path, ports: dict[str, int]) -> None:
    """Write the role's prometheus.yml, with the rules beside it."""
    local = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    services = {
        name: httpx.URL(url).netloc.decode()
        for name, url in (("gateway", running.gateway), ("api", running.api), ("worker", running.worker))
    }
    broker = [f"127.0.0.1:{running.broker.metrics_port}"]
    environment = Environment(autoescape=False, trim_blocks=True)  # noqa: S701  # YAML, not a page
    environment.filters |= {"bool": bool, "to_json": lambda value: yaml.safe_dump(value, default_flow_style=True)}
    jobs = {
        **{name: [address] for name, address in services.items()},
        "rabbitmq": broker,
        **{name: [local[name]] for name in ("node", "redis_exporter", "postgres")},
    }
    settings = alert_rules.settings() | {
        "monitoring_scrape_interval": f"{SCRAPE_SECONDS}s",
        "monitoring_rabbitmq_targets": broker,
        "telegram_rabbitmq_vhost": VHOST,
        "monitoring_redis_instances": [f"127.0.0.1:{link.target}" for link in running.cache.links.values()],
        "monitoring_components": ["prometheus", "redis_exporter", "postgres_exporter", "node_exporter"],
        "telegram_prometheus_port": ports["prometheus"],
        "_monitoring_redis_exporter": local["redis_exporter"],
        "_monitoring_local": "127.0.0.1",
        "_monitoring_tls": False,
        "_monitoring_tls_nodes": [],
        "_monitoring_rules_dir": str(folder / "rules"),
        "_monitoring_targets_dir": str(folder / "targets"),
        "_monitoring_jobs": jobs,
    }
    (folder / "targets").mkdir()
    for name, targets in {**jobs, "redis": settings["monitoring_redis_instances"]}.items():
        (folder / "targets" / f"{name}.yml").write_text(yaml.safe_dump([{"targets": targets}]))
    (folder / "rules").mkdir(exist_ok=True)
    alert_rules.write(folder / "rules")
    text = (ROOT / "roles/monitoring/templates/prometheus.yml.j2").read_text(encoding="utf-8")
    (folder / "prometheus.yml").write_text(environment.from_string(text).render(settings))


def load(running: Stack, rate: int, count: int) -> None:
    """Have `count` messages posted, `rate` a second."""
    httpx.post(f"{running.control}/load", json={"rate": rate, "count": count}).raise_for_status()


def disturb(running: Stack) -> None:
    """Have Telegram skip some updates, cut the connection and ask for a pause."""
    httpx.post(f"{running.control}/faults", json={"floods": {"getDialogs": 3}, "skip": 3}).raise_for_status()
    httpx.post(f"{running.control}/disconnect").raise_for_status()


def ask_api(running: Stack) -> None:
    """Ask the API as a client does that looks at the newest messages."""
    with httpx.Client(base_url=running.api, headers={"x-api-key": TOKEN}) as client:
        for path in ("/api/messages", "/api/channels", "/api/messages"):
            client.get(path).raise_for_status()


def main() -> None:
    """Keep a watched stack busy for so many minutes."""
    minutes = float(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # everything that it started ends with it
    with tempfile.TemporaryDirectory(prefix="watched-") as name:
        Path(name).chmod(0o755)
        with watched(Path(name)) as (running, address):
            print(address, flush=True)
            end = time.monotonic() + minutes * 60
            load(running, 20, int(20 * 60 * minutes))
            disturb(running)
            while time.monotonic() < end:
                ask_api(running)
                time.sleep(1)


if __name__ == "__main__":
    main()

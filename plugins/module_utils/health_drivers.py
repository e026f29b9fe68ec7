# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One small function for each kind of check: ask the component, let `health_judge` judge the answer."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import health_judge as judge
from .health import OFF, OK, Check, Driver, Finding, NoAnswer
from .health_maintenance import QUERY as MAINTENANCE
from .health_maintenance import Job
from .health_maintenance import judge as judge_maintenance
from .health_record import judge as judge_record
from .health_record import read as read_record
from .health_redis import pairs, redis_connection

if TYPE_CHECKING:
    import psycopg

FAILURES = "SELECT count(*) FROM telegram.failures WHERE replayed_at IS NULL"
LONGEST_BODY = 32 << 20


def _off(check: Check) -> Finding:
    return Finding(OFF, check.get("reason") or "switched off")


def _unit(check: Check) -> Finding:
    properties = "LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic"
    shown = subprocess.run(
        ["systemctl", "show", f"--property={properties}", "--", check["unit"]],
        capture_output=True,
        text=True,
        timeout=check["timeout"],
        check=False,
    )
    if shown.returncode:
        raise NoAnswer(f"systemctl failed: {shown.stderr.strip()}")
    clock = time.clock_gettime(time.CLOCK_MONOTONIC)
    return judge.unit(shown.stdout, clock, check["unit"], check["required"], check["restarts"])


def _tcp(check: Check) -> Finding:
    with _answering(check), socket.create_connection((check["host"], check["port"]), check["timeout"]):
        return Finding(OK, "accepts connections")


def fetch(check: Check, path: str) -> tuple[int, str]:
    """GET `path` from the check's host: status and body. Raises NoAnswer."""
    headers = {"Connection": "close"}
    if check.get("user"):
        login = f"{check['user']}:{check.get('password') or ''}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(login).decode()
    with _answering(check):
        connection = _connection(check)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(LONGEST_BODY).decode(errors="replace")
        finally:
            connection.close()


def _connection(check: Check) -> http.client.HTTPConnection:
    if not check.get("ca_file"):
        return http.client.HTTPConnection(check["host"], check["port"], timeout=check["timeout"])
    try:
        context = ssl.create_default_context(cafile=check["ca_file"])
    except OSError as error:
        raise NoAnswer(f"cannot read {check['ca_file']}: {error}", "deploy the monitoring again") from error
    return http.client.HTTPSConnection(check["host"], check["port"], timeout=check["timeout"], context=context)


def fetch_json(check: Check, path: str) -> Any:
    """The document at `path` of the check's host. Raises NoAnswer."""
    status, body = fetch(check, path)
    if status == 401:
        raise NoAnswer(f"user {check.get('user')} is refused", "its password was changed by hand: deploy again")
    if status != 200:
        raise NoAnswer(f"HTTP {status} from {path}")
    try:
        return json.loads(body)
    except ValueError as error:
        raise NoAnswer(f"no JSON from {path}") from error


@contextmanager
def _answering(check: Check) -> Iterator[None]:
    """Say where nothing answered."""
    where = f"{check['host']}:{check['port']}"
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer(f"no answer from {where} within {check['timeout']} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"no answer from {where}: {error or type(error).__name__}") from error


def _http(check: Check) -> Finding:
    status, body = fetch(check, check["path"])
    if check.get("json_field"):
        return judge.http_json(status, body, check["json_field"], check["json_states"])
    return judge.http_text(status, body, check["accept"])


def _metrics(check: Check) -> Finding:
    status, body = fetch(check, check["path"])
    if status != 200:
        raise NoAnswer(f"HTTP {status} from {check['path']}")
    return judge.metrics(body, check["metric"], check["minimum"])


@contextmanager
def _database(check: Check) -> Iterator[psycopg.Connection[Any]]:
    """A connection; whatever the server says against it becomes NoAnswer.

    ClientCursor speaks the simple protocol: PgBouncer's console knows no other and its pools need none.
    """
    try:
        import psycopg  # noqa: PLC0415  only hosts with such checks have it
    except ImportError as error:
        raise NoAnswer(f"psycopg is missing ({error})", "apt install python3-psycopg") from error
    try:
        with psycopg.connect(
            host=check["host"],
            port=check["port"],
            user=check["user"],
            password=check["password"],
            dbname=check["database"],
            connect_timeout=max(2, int(check["timeout"])),  # libpq's own minimum
            application_name="stack_health",
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise NoAnswer(str(error)) from error


def _postgresql(check: Check) -> Finding:
    with _database(check) as connection:
        row = connection.execute(check["query"]).fetchone()
        number = connection.info.server_version
    version = f"{number // 10000}.{number % 10000}"
    return judge.number(row[0] if row else None, check["measures"], check.get("warn"), check.get("fail"), version)


def _failures(check: Check) -> Finding:
    with _database(check) as connection:
        row = connection.execute(FAILURES).fetchone()
    return judge.failures(row[0] if row else None)


def _maintenance(check: Check) -> Finding:
    with _database(check) as connection:
        jobs = [Job(*row) for row in connection.execute(MAINTENANCE)]
    return judge_maintenance(jobs, check["warn"])


def _record(check: Check) -> Finding:
    return judge_record(read_record(check["path"], check["entry"]), time.time(), check["warn"])


def _pgbouncer(check: Check) -> Finding:
    with _database(check) as console:
        version = str((console.execute("SHOW VERSION").fetchone() or [""])[0]).removeprefix("PgBouncer ")
        pools = console.execute("SHOW POOLS")
        column = [each.name for each in pools.description or []].index("cl_waiting")
        waiting = sum(int(row[column]) for row in pools)
    found = judge.number(waiting, check["measures"], check.get("warn"), check.get("fail"), version)
    return found._replace(hint="transactions are long or the pool is small; SHOW POOLS on the console says whose")


def _redis_info(check: Check, host: str, port: int, login: tuple[str, str]) -> dict[str, str]:
    with (
        _answering({**check, "host": host, "port": port}),
        redis_connection(host, port, *login, check["timeout"]) as redis,
    ):
        return judge.info(str(redis.ask("INFO")))


def _login(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry.get("user") or "", entry.get("password") or ""


def _redis(check: Check) -> Finding:
    return judge.redis(_redis_info(check, check["host"], check["port"], _login(check)))


def _resolved(host: str, port: int) -> tuple[str, int]:
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port


def _sentinel(check: Check) -> Finding:
    """Ask every sentinel, then every instance: an instance that is down names no role and is no primary."""
    answers, replicas, version = {}, 0, ""
    for host in check["sentinels"]:
        where = {**check, "host": host}
        with (
            _answering(where),
            redis_connection(host, check["port"], *_login(check), check["timeout"]) as sentinel,
        ):
            named = sentinel.ask("SENTINEL", "get-master-addr-by-name", check["primary"])
            if not isinstance(named, list) or len(named) != 2:
                raise NoAnswer(f"sentinel {host}:{check['port']} knows no primary {check['primary']!r}")
            answers[(host, int(check["port"]))] = _resolved(named[0], int(named[1]))
            known = [pairs(entry) for entry in sentinel.ask("SENTINEL", "replicas", check["primary"])]
            replicas = sum("down" not in entry.get("flags", "down") for entry in known)
            version = judge.info(str(sentinel.ask("INFO", "server"))).get("redis_version", "")
    roles = {}
    for instance in check["instances"]:
        try:
            info = _redis_info(check, instance["host"], instance["port"], _login(instance))
        except NoAnswer:
            info = {}
        roles[_resolved(instance["host"], instance["port"])] = info.get("role", "")
    return judge.sentinel(answers, roles, replicas, version)


def _rabbitmq(check: Check) -> Finding:
    return judge.rabbitmq_nodes(fetch_json(check, "/api/overview"), fetch_json(check, "/api/nodes"))


def _rabbitmq_queues(check: Check) -> Finding:
    return judge.rabbitmq_queues(fetch_json(check, f"/api/queues/{quote(check['vhost'], safe='')}"), check["queues"])


def _prometheus(check: Check) -> Finding:
    build = fetch_json(check, "/api/v1/status/buildinfo")
    finding = judge.prometheus_targets(fetch_json(check, "/api/v1/targets?state=active"), check.get("off_jobs", ()))
    return finding._replace(version=str(build.get("data", {}).get("version", "")))


DRIVERS: Mapping[str, Driver] = {
    "off": _off,
    "unit": _unit,
    "tcp": _tcp,
    "http": _http,
    "metrics": _metrics,
    "postgresql": _postgresql,
    "maintenance": _maintenance,
    "failures": _failures,
    "record": _record,
    "pgbouncer": _pgbouncer,
    "redis": _redis,
    "sentinel": _sentinel,
    "rabbitmq": _rabbitmq,
    "rabbitmq_queues": _rabbitmq_queues,
    "prometheus": _prometheus,
}

"""Health checks over real sockets: a small HTTP server and servers that answer from a script."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils import health
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health import NoAnswer
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health_drivers import DRIVERS
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health_redis import pairs, redis_connection

Answers = dict[str, tuple[int, str]]


@contextmanager
def web(answers: Answers, login: str = "") -> Iterator[int]:
    """An HTTP server on a free port; with `login` it wants basic authentication."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + base64.b64encode(login.encode()).decode()
            if login and self.headers.get("Authorization") != wanted:
                status, body = 401, ""
            else:
                status, body = answers.get(self.path, (404, "none"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def scripted(replies: Mapping[str, bytes]) -> Iterator[int]:
    """A server of the Redis protocol that answers each command, known by its first word, from `replies`.

    The empty reply ends the connection.
    """

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            while head := lines.readline():
                words = [lines.read(int(lines.readline()[1:]) + 2)[:-2].decode() for _ in range(int(head[1:]))]
                reply = replies.get(" ".join(words[:2]), replies.get(words[0], b"-ERR unknown command\r\n"))
                if not reply:
                    return
                client.sendall(reply)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            serve(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def bulk(*words: str) -> bytes:
    """A reply: one word as a bulk string, several as a list."""
    encoded = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
    return encoded if len(words) == 1 else b"*%d\r\n" % len(words) + encoded


def ask(kind: str, port: int, **fields: Any) -> dict[str, Any]:
    """The result of one check of the port."""
    check = {"component": "A", "name": "b", "kind": kind, "host": "127.0.0.1", "port": port, "timeout": 2.0, **fields}
    result: dict[str, Any] = health.run_check(check, DRIVERS)
    return result


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("tcp", {}),
        ("http", {"path": "/", "accept": [200]}),
        ("metrics", {"path": "/", "metric": "up", "minimum": 1}),
        ("redis", {"user": "u", "password": "p"}),
        ("sentinel", {"sentinels": ["127.0.0.1"], "primary": "telegram", "instances": []}),
        ("rabbitmq", {"user": "u", "password": "p"}),
        ("rabbitmq_queues", {"user": "u", "password": "p", "vhost": "telegram", "queues": []}),
        ("prometheus", {}),
        ("postgresql", {"user": "u", "password": "p", "database": "d", "query": "SELECT 1", "measures": "x"}),
        ("pgbouncer", {"user": "u", "password": "p", "database": "pgbouncer", "measures": "x"}),
    ],
)
def test_where_nobody_listens_every_kind_fails(kind: str, fields: dict[str, Any]) -> None:
    result = ask(kind, free_port(), **fields)
    assert result["status"] == "failed"
    assert "refused" in result["value"]


def test_a_port_that_accepts_and_says_nothing_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert ask("tcp", port)["status"] == "ok"
        result = ask("http", port, path="/", accept=[200], timeout=0.1)
        assert (result["status"], "within 0.1 s" in result["value"]) == ("failed", True)
        assert ask("redis", port, timeout=0.1)["status"] == "failed"


def test_http_by_code_and_by_state() -> None:
    with web({"/-/ready": (200, "Ready"), "/health": (503, '{"status": "unauthenticated"}')}) as port:
        assert ask("http", port, path="/-/ready", accept=[200])["status"] == "ok"
        assert ask("http", port, path="/other", accept=[200])["status"] == "failed"
        states = {"healthy": "ok", "unauthenticated": "degraded"}
        assert ask("http", port, path="/health", json_field="status", json_states=states)["status"] == "degraded"


def test_metrics_of_a_target_that_is_down_fail() -> None:
    with web({"/metrics": (200, "pg_up 0\n"), "/gone": (500, "pg_up 1\n")}) as port:
        assert ask("metrics", port, path="/metrics", metric="pg_up", minimum=1)["value"] == "pg_up 0"
        assert ask("metrics", port, path="/gone", metric="pg_up", minimum=1)["status"] == "failed"


def test_rabbitmq_needs_its_password_and_escapes_the_virtual_host() -> None:
    node = {"name": "rabbit@a", "running": True, "mem_alarm": False, "disk_free_alarm": False}
    answers = {
        "/api/overview": (200, '{"rabbitmq_version": "4.0.5"}'),
        "/api/nodes": (200, json.dumps([node])),
        "/api/queues/%2F": (200, '[{"name": "dlq", "messages": 0}]'),
    }
    with web(answers, "monitor:right") as port:
        good = ask("rabbitmq", port, user="monitor", password="right")
        assert (good["status"], good["version"]) == ("ok", "4.0.5")
        bad = ask("rabbitmq", port, user="monitor", password="wrong")
        assert (bad["status"], bad["value"]) == ("failed", "user monitor is refused")
        limits = [{"queue": "dlq", "messages": 0, "consumers": 0}]
        queues = ask("rabbitmq_queues", port, user="monitor", password="right", vhost="/", queues=limits)
        assert queues["status"] == "ok"


def test_prometheus_names_its_version_and_its_targets() -> None:
    answers = {
        "/api/v1/status/buildinfo": (200, '{"data": {"version": "2.53.3"}}'),
        "/api/v1/targets?state=active": (
            200,
            '{"data": {"activeTargets": [{"labels": {"job": "a"}, "health": "up"}]}}',
        ),
    }
    with web(answers) as port:
        result = ask("prometheus", port)
    assert (result["status"], result["version"]) == ("ok", "2.53.3")


INFO = "# Server\r\nredis_version:8.0.2\r\n# Replication\r\nrole:{}\r\n"


def test_redis_is_asked_behind_its_password() -> None:
    with scripted({"AUTH": b"+OK\r\n", "INFO": bulk(INFO.format("master"))}) as port:
        result = ask("redis", port, user="u", password="p")
    assert (result["status"], result["version"]) == ("ok", "8.0.2")
    with scripted({"AUTH": b"-WRONGPASS invalid\r\n"}) as port:
        result = ask("redis", port, user="u", password="secret-1")
    assert (result["status"], "WRONGPASS" in result["value"]) == ("failed", True)
    assert "secret-1" not in str(result)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400\r\n", b"$9999999999\r\n", b"$10\r\nshort", b":x\r\n", b"%1\r\n"])
def test_what_is_not_redis_is_no_answer(reply: bytes) -> None:
    class Once(threading.Thread):
        def run(self) -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Once()
        thread.start()
        host, port = listener.getsockname()
        with redis_connection(host, port, "", "", 2.0) as redis, pytest.raises(NoAnswer):
            redis.ask("INFO")
        thread.join()


def test_redis_replies_of_every_kind() -> None:
    replies = {"A": b":5\r\n", "B": b"$-1\r\n", "C": b"*2\r\n+a\r\n" + bulk("ü"), "D": b"*-1\r\n"}
    with scripted(replies) as port, redis_connection("127.0.0.1", port, "", "", 2.0) as redis:
        assert [redis.ask(word) for word in "ABCD"] == [5, None, ["a", "ü"], None]
    assert pairs(["a", 1, "b", "c"]) == {"a": "1", "b": "c"}
    for nonsense in (None, "ab", ["a"]):
        with pytest.raises(NoAnswer):
            pairs(nonsense)


def sentinel_of(port: int, *, replica_flags: str = "slave") -> dict[str, bytes]:
    """The replies of a sentinel that names 127.0.0.1:`port` as the primary."""
    return {
        "SENTINEL get-master-addr-by-name": bulk("127.0.0.1", str(port)),
        "SENTINEL replicas": b"*1\r\n" + bulk("name", "r", "flags", replica_flags),
        "INFO": bulk(INFO.format("sentinel")),
    }


@pytest.mark.requirement("RD-02")
@pytest.mark.parametrize(
    ("role", "flags", "status"),
    [("master", "slave", "ok"), ("master", "s_down,slave,disconnected", "degraded"), ("slave", "slave", "failed")],
)
def test_the_sentinels_word_is_held_against_the_instances(role: str, flags: str, status: str) -> None:
    with scripted({"INFO": bulk(INFO.format(role))}) as port, scripted(sentinel_of(port, replica_flags=flags)) as watch:
        instances = [{"host": "localhost", "port": port}, {"host": "127.0.0.1", "port": free_port()}]
        result = ask("sentinel", watch, sentinels=["127.0.0.1"], primary="telegram", instances=instances)
    assert result["status"] == status, result


def test_a_sentinel_without_a_primary_has_failed() -> None:
    with scripted({"SENTINEL": b"*-1\r\n"}) as watch:
        result = ask("sentinel", watch, sentinels=["127.0.0.1"], primary="telegram", instances=[])
    assert (result["status"], "knows no primary" in result["value"]) == ("failed", True)


def test_off_says_why() -> None:
    result = ask("off", 5672, reason="telegram_queue_enabled is false", hint="nothing to do")
    assert (result["status"], result["value"], result["hint"]) == (
        "off",
        "telegram_queue_enabled is false",
        "nothing to do",
    )

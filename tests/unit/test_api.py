"""The API without a database: tokens, parameters, errors, health."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from starlette.datastructures import Headers, QueryParams

from telegram_stack.api import health, params
from telegram_stack.api.app import Api
from telegram_stack.api.config import ApiConfig, CacheConfig
from telegram_stack.api.errors import ApiError
from telegram_stack.api.health import Check, Health, UnhealthyError
from telegram_stack.api.params import Query
from telegram_stack.api.tokens import Scope, Token, TokenFileError, find, parse_tokens, presented
from telegram_stack.config import load

READER, WRITER = "reader-token-0123456789", "writer-token-0123456789"
TOKENS = parse_tokens(f"# clients\ndashboard:read:{READER}\n\ntp-capital:write:{WRITER}\n")


def ok() -> Check:
    async def check() -> str | None:
        return None

    return check


def answering(words: str) -> Check:
    async def check() -> str | None:
        return words

    return check


def failing(words: str) -> Check:
    async def check() -> str | None:
        raise UnhealthyError(words)

    return check


def client(settings: Mapping[str, Any] | None = None, /, **checks: Check) -> httpx.AsyncClient:
    """A client of an API that has no database: whoever gets that far fails."""
    config = ApiConfig(database=Mock(), **(settings or {}))
    api = Api(config, Mock(spec=()), TOKENS, Health({"database": ok(), **checks}))
    return httpx.AsyncClient(transport=httpx.ASGITransport(api.application()), base_url="http://api")


@pytest.mark.requirement("API-04")
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Gateway-Token": READER},
        {"X-API-Token": READER},
        {"X-API-Key": READER},
        {"Authorization": f"Bearer {READER}"},
        {"authorization": f"bearer {READER}"},
    ],
)
async def test_a_token_is_taken_from_each_header(headers: dict[str, str]) -> None:
    async with client() as http:
        answer = await http.get("/api/messages/no-uuid", headers=headers)
    assert answer.status_code == 422  # so it was let in


@pytest.mark.requirement("API-04")
@pytest.mark.parametrize(
    ("method", "path", "token", "status", "code"),
    [
        ("GET", "/api/messages", None, 401, "token_missing"),
        ("GET", "/api/messages", "x" * 23, 401, "token_unknown"),
        ("GET", "/api/messages", READER[:-1], 401, "token_unknown"),
        ("GET", "/api/channels", "ключ", 401, "token_unknown"),
        ("POST", "/api/messages/mark-processed", READER, 403, "scope_missing"),
        ("POST", "/api/channels", READER, 403, "scope_missing"),
        ("PUT", "/api/channels/-1001", READER, 403, "scope_missing"),
        ("DELETE", "/api/channels/-1001", READER, 403, "scope_missing"),
        ("GET", "/api/nothing", READER, 404, "not_found"),
        ("PATCH", "/api/channels", READER, 405, "method_not_allowed"),
    ],
)
async def test_refusals_are_in_the_envelope(method: str, path: str, token: str | None, status: int, code: str) -> None:
    headers = {b"X-API-Key": token.encode()} if token else {}
    async with client() as http:
        answer = await http.request(method, path, headers=headers)
    body = answer.json()
    assert answer.status_code == status
    assert (body["success"], body["status"], body["code"], body["errors"]) == (False, status, code, [])
    assert body["message"]


def test_scopes_include_those_below() -> None:
    assert Scope.READ < Scope.WRITE < Scope.ADMIN


def test_a_token_may_be_changed_without_a_gap() -> None:
    tokens = parse_tokens(f"app:read:{READER}\napp:read:{WRITER}")
    assert [found.name for secret in (READER, WRITER) if (found := find(tokens, secret))] == ["app", "app"]


def test_a_token_never_shows_its_secret() -> None:
    assert READER not in repr(TOKENS)
    assert repr(Token("app", Scope.READ, b"secret")) == "Token(app, READ)"


@pytest.mark.parametrize(
    "text",
    ["", "# nothing", "app:read", f"app:root:{READER}", "app:read:short", f":read:{READER}", f"a b:read:{READER}"],
)
def test_a_bad_token_file_is_refused_without_its_secrets(text: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        parse_tokens(text)
    assert READER not in str(caught.value)
    assert "short" not in str(caught.value)


def test_other_authorization_schemes_are_no_token() -> None:
    assert presented(Headers({"Authorization": "Basic abc"})) is None
    assert presented(Headers({"Authorization": "Bearer "})) is None


@pytest.mark.requirement("API-04")
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/messages?limit=0", ["limit"]),
        ("/api/messages?limit=10001", ["limit"]),
        ("/api/messages?limit=ten&offset=-1", ["limit", "offset"]),
        ("/api/messages?limit=%D9%A3", ["limit"]),
        ("/api/messages?limit=" + "9" * 5000, ["limit"]),
        ("/api/messages?limit=1&limit=2", ["limit"]),
        ("/api/messages?channelId=abc", ["channelId"]),
        ("/api/messages?channelId=-1001,0", ["channelId"]),
        ("/api/messages?channelId=99999999999999999999", ["channelId"]),
        ("/api/messages?channelId=-1270839228370927281017716736", ["channelId"]),
        ("/api/messages?limit=--5", ["limit"]),
        ("/api/messages?messageId=0", ["messageId"]),
        ("/api/messages?status=done", ["status"]),
        ("/api/messages?from=yesterday&to=2026-13-01", ["from", "to"]),
        ("/api/messages?includeDeleted=maybe", ["includeDeleted"]),
        ("/api/messages?search=%00", ["search"]),
        ("/api/messages/one", ["id"]),
        ("/api/messages/unprocessed", ["channel"]),
        ("/api/messages/unprocessed?channel=&limit=x", ["channel", "limit"]),
    ],
)
async def test_bad_parameters_are_named_all_at_once(path: str, fields: list[str]) -> None:
    async with client() as http:
        answer = await http.get(path, headers={"X-API-Key": READER})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == fields
    assert all(error["reason"] for error in answer.json()["errors"])


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/api/messages/mark-processed", b"", "body"),
        ("POST", "/api/messages/mark-processed", b"\xff", "body"),
        ("POST", "/api/messages/mark-processed", b"[]", "body"),
        ("POST", "/api/messages/mark-processed", b"{}", "body"),
        ("POST", "/api/messages/mark-processed", b'{"messageIds":[],"processedBy":"x"}', "messageIds"),
        ("POST", "/api/messages/mark-processed", b'{"messageIds":[1],"processedBy":""}', "processedBy"),
        ("POST", "/api/messages/mark-processed", b'{"messageIds":[1,"x"],"processedBy":"x"}', "messageIds[1]"),
        ("POST", "/api/messages/mark-processed", b'{"messageIds":[true],"processedBy":"x"}', "messageIds[0]"),
        ("POST", "/api/messages/mark-processed", b'{"messageIds":[1],"processedBy":"x","channelId":"y"}', "channelId"),
        ("POST", "/api/channels", b'{"label":"x"}', "body"),
        ("POST", "/api/channels", b'{"channelId":"x"}', "channelId"),
        ("POST", "/api/channels", b'{"channelId":-1001,"isActive":"yes"}', "isActive"),
        ("PUT", "/api/channels/-1001", b"{}", "body"),
        ("PUT", "/api/channels/x", b'{"label":"x"}', "id"),
    ],
)
async def test_a_bad_body_is_refused_with_its_member(method: str, path: str, body: bytes, field: str) -> None:
    async with client() as http:
        answer = await http.request(method, path, content=body, headers={"X-API-Key": WRITER})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.requirement("API-04")
async def test_a_body_has_a_limit() -> None:
    async with client() as http:
        answer = await http.post("/api/channels", content=b" " * (2 << 20), headers={"X-API-Key": WRITER})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("text", "value"),
    [("-1001234567890", -1001234567890), ("1234567890", -1001234567890), ("-1001", -1001), ("-5", -5)],
)
def test_channel_ids_without_their_mark_get_it(text: str, value: int) -> None:
    assert params.channel_id(text) == value


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-05-04T12:00:00Z", 12),
        ("2026-05-04T12:00:00", 12),
        ("2026-05-04T12:00:00+02:00", 10),
        ("2026-05-04T12:00:00 02:00", 10),
        ("2026-05-04 12:00", 12),
        ("2026-05-04", 0),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, hour: int) -> None:
    assert params.moment(text).astimezone(UTC) == datetime(2026, 5, 4, hour, tzinfo=UTC)


def test_parameters_repeat_or_have_commas() -> None:
    query = Query(QueryParams("status=received,failed&status=published&status="))
    assert query.many("status", params.status) == ["received", "failed", "published"]
    query.finish()


def test_every_fault_is_in_one_error() -> None:
    query = Query(QueryParams("a=x&b=y"))
    query.one("a", params.integer(1, 2), 1)
    query.one("b", params.boolean, True)
    with pytest.raises(ApiError) as caught:
        query.finish()
    assert [error.field for error in caught.value.errors] == ["a", "b"]


@pytest.mark.requirement("API-03")
@pytest.mark.parametrize(
    ("checks", "status", "code"),
    [
        ({"cache": ok(), "gateway": ok(), "queue": ok()}, "healthy", 200),
        ({"cache": failing("no primary"), "gateway": ok()}, "degraded", 200),
        ({"gateway": answering("unauthenticated")}, "degraded", 200),
        ({"database": failing("gone"), "cache": ok()}, "unhealthy", 503),
    ],
)
async def test_health_needs_the_database_and_shows_the_rest(checks: dict[str, Check], status: str, code: int) -> None:
    async with client(**checks) as http:
        answer = await http.get("/health")
    body = answer.json()
    assert (answer.status_code, body["status"]) == (code, status)
    assert "success" not in body
    assert body["components"].keys() == {"database", *checks}
    assert all(component["latencyMs"] >= 0 for component in body["components"].values())


async def serving(answer: bytes) -> tuple[asyncio.Server, int]:
    """A server that says `answer` to whoever asks."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"status":"healthy"}', None),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status":"degraded"}', "degraded"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status":"degraded","causes":["one","two"]}', "degraded: one; two"),
        (b'HTTP/1.1 503 No\r\n\r\n{"status":"unhealthy"}', UnhealthyError),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", UnhealthyError),
        (b"SSH-2.0\r\n", UnhealthyError),
    ],
)
async def test_the_gateway_s_own_word_counts(answer: bytes, said: Any) -> None:
    server, port = await serving(answer)
    async with server:
        config = ApiConfig(database=Mock(), gateway=Mock(host="127.0.0.1", port=port, timeout=2.0), cache=cache())
        gateway = health.checks(config, Mock())["gateway"]
        if isinstance(said, type):
            with pytest.raises(said):
                await gateway()
        else:
            assert await gateway() == said


def cache() -> CacheConfig:
    """A cache whose secret is a file that is there."""
    return CacheConfig(password_file=str(Path(__file__)))


async def test_what_does_not_listen_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnhealthyError, match=f"127.0.0.1:{port}"):
        await health.http_get("127.0.0.1", port, "/", 1.0)


async def test_a_cache_without_sentinels_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    config = CacheConfig(password_file=str(Path(__file__)), sentinels=(address,))
    with pytest.raises(UnhealthyError) as caught:
        await health.cache_check(config)()
    assert str(caught.value) == f"no sentinel ({address}) names a primary of telegram"


async def test_the_service_says_what_it_is() -> None:
    async with client() as http:
        answer = await http.get("/")
        metrics = await http.get("/metrics")
    assert answer.json()["service"] == "telegram-gateway-api"
    assert 'telegram_api_requests_total{method="GET",route="/",status="200"}' in metrics.text


def test_the_smallest_config(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text('[database]\nuser = "telegram_api"\n')
    config = load(path, ApiConfig)
    assert (config.port, config.database.port, config.consumer) == (4010, 6434, "signals")


@pytest.mark.requirement("API-01")
async def test_the_description_has_every_route_and_the_page_loads_nothing() -> None:
    api = Api(ApiConfig(database=Mock()), Mock(spec=()), TOKENS, Health({"database": ok()}))
    routes = {(route.path, method) for route in api.application().routes for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.application()), base_url="http://api") as http:
        document = (await http.get("/openapi.json")).json()
        page = await http.get("/docs")
    routes = {(path, method) for path, method in routes if not path.startswith("/console/")}  # pages, for people
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == routes
    assert document["openapi"] == "3.1.0"
    listed = document["paths"]["/api/messages"]["get"]
    assert {param["name"] for param in listed["parameters"]} == {
        "channelId", "messageId", "status", "source", "from", "to", "search", "includeDeleted", "sort", "limit",
        "offset", "cursor",
    }  # fmt: skip
    assert {"200", "304", "401", "403", "422", "429", "503"} == set(listed["responses"])
    for path, method in routes:
        assert f"{method} {path}" in page.text
    assert "'unsafe" not in page.headers["Content-Security-Policy"]
    assert not re.findall(r"<(?:script|link|img|iframe)|url\(|https?://|@import", page.text)


@pytest.mark.requirement("API-01")
async def test_every_path_of_the_legacy_api_is_there() -> None:
    api = Api(ApiConfig(database=Mock()), Mock(spec=()), TOKENS, Health({"database": ok()}))
    known = {f"{operation.method} {operation.path}" for operation in api.operations}
    base = "/api/telegram-gateway"
    legacy = {
        "GET /", "GET /health", "GET /metrics", "GET /api/messages", "GET /api/messages/unprocessed",
        "POST /api/messages/mark-processed", "GET /api/messages/{id}", "DELETE /api/messages/{id}",
        "POST /api/messages/{id}/reprocess", "GET /api/channels", "POST /api/channels", "PUT /api/channels/{id}",
        "DELETE /api/channels/{id}", f"GET {base}/auth/status", f"POST {base}/auth/start", f"POST {base}/auth/input",
        f"POST {base}/auth/cancel", f"GET {base}/overview", f"GET {base}/metrics", f"GET {base}/session",
        f"GET {base}/queue", f"GET {base}/queue/preview-limit", f"GET {base}/messages/summary", f"GET {base}/config",
        f"POST {base}/actions/reload", f"POST {base}/sync-messages", f"GET {base}/photos/{{channelId}}/{{messageId}}",
    }  # fmt: skip
    assert legacy <= known

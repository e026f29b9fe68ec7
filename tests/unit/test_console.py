"""The console without a database: who is signed in, who asks, what a form of another page gets, and what is drawn."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.datastructures import Headers

from telegram_stack import console
from telegram_stack.api.app import Api
from telegram_stack.api.config import ApiConfig, WorkerConfig
from telegram_stack.api.errors import ApiError
from telegram_stack.api.health import Health
from telegram_stack.api.tokens import parse_tokens
from telegram_stack.console import migration
from telegram_stack.console.asking import Part
from telegram_stack.console.rendering import ago, duration, number, rate
from telegram_stack.console.session import COOKIE, Sessions, prefers_html, same_origin
from telegram_stack.console.stages import Stages, chart

pytestmark = pytest.mark.requirement("API-07")

READER, ADMIN = "reader-token-0123456789", "admin-token-0123456789"
TOKENS = parse_tokens(f"board:read:{READER}\noperator:admin:{ADMIN}")
OURS = {"Origin": "http://api"}
HOME = Path(str(console.__file__)).parent
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def _ok() -> None:
    return None


def client(**settings: Any) -> httpx.AsyncClient:
    """A browser of an API that has no database: whoever gets that far fails."""
    api = Api(ApiConfig(database=Mock(), **settings), Mock(spec=()), TOKENS, Health({"database": _ok}))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(api.application()), base_url="http://api", headers={"Accept": BROWSER}
    )


async def signed_in(http: httpx.AsyncClient, token: str = READER) -> None:
    answer = await http.post("/console/sign-in", data={"token": token}, headers=OURS)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_a_cookie_stands_for_its_token_until_it_expires() -> None:
    now = 1000.0
    sessions = Sessions(TOKENS, 3600, lambda: now)
    cookie = sessions.cookie(TOKENS[1])
    assert sessions.token(cookie) is TOKENS[1]
    now = 4599.9
    assert sessions.token(cookie) is TOKENS[1]
    now = 4600.0
    assert sessions.token(cookie) is None


def test_a_cookie_that_was_changed_stands_for_nobody() -> None:
    sessions = Sessions(TOKENS, 3600, lambda: 1000.0)
    name, expires, signature = sessions.cookie(TOKENS[0]).split(":")
    for changed in (
        f"operator:{expires}:{signature}",
        f"{name}:{int(expires) + 1}:{signature}",
        f"{name}:{expires}:{signature[:-1]}{'0' if signature[-1] != '0' else '1'}",
        f"{name}:{expires}:",
        f"{name}:{'9' * 5000}:{signature}",
        f"{name}:{expires}:{hashlib.sha256(READER.encode()).hexdigest()}",
        "",
        READER,
    ):
        assert sessions.token(changed) is None, changed


def test_a_token_that_is_taken_out_takes_its_sessions_with_it_and_a_second_of_its_name_leaves_them() -> None:
    cookie = Sessions(TOKENS, 3600).cookie(TOKENS[0])
    assert Sessions(parse_tokens(f"board:read:another-{READER}"), 3600).token(cookie) is None
    both = parse_tokens(f"board:read:another-{READER}\nboard:read:{READER}")
    assert Sessions(both, 3600).token(cookie) == TOKENS[0]


def test_a_cookie_shows_neither_secret_nor_digest() -> None:
    cookie = Sessions(TOKENS, 3600).cookie(TOKENS[0])
    assert READER not in cookie
    assert hashlib.sha256(READER.encode()).hexdigest() not in cookie


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/html;q=0.5, application/json;q=0.9", False),
        ("application/json, text/html;q=0.9", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
    ],
)
def test_pages_are_for_browsers(accept: str, html: bool) -> None:
    assert prefers_html(Headers({"Accept": accept})) is html


async def test_who_asks_for_json_gets_the_legacy_service_info() -> None:
    async with client() as http:
        for accept in ("application/json", "*/*"):
            answer = await http.get("/", headers={"Accept": accept})
            assert (answer.status_code, answer.json()["service"]) == (200, "telegram-gateway-api")
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/sign-in")


@pytest.mark.parametrize(
    ("origin", "ours"),
    [("http://api", True), ("https://API", True), ("http://api:81", False), ("http://evil", False), ("null", False)],
)
def test_only_a_page_of_ours_may_send_a_form(origin: str, ours: bool) -> None:
    assert same_origin(Headers({"Origin": origin, "Host": "api"})) is ours


def test_a_form_without_an_origin_is_not_ours() -> None:
    assert not same_origin(Headers({"Host": "api"}))
    assert not same_origin(Headers({}))


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://evil"}, {"Origin": "null"}])
async def test_a_form_of_another_page_is_refused_everywhere(headers: dict[str, str]) -> None:
    async with client() as http:
        await signed_in(http, ADMIN)
        for path in ("channels", "failures", "account", "sign-in", "sign-out"):
            answer = await http.post(f"/console/{path}", data={"action": "register"}, headers=headers)
            assert answer.status_code == 403, path
            assert "did not come from a page of this console" in answer.text
            assert "set-cookie" not in answer.headers


async def test_a_wrong_token_is_refused_and_guesses_are_counted() -> None:
    async with client(rate_limit=3) as http:
        for status in (401, 401, 401, 429):
            answer = await http.post("/console/sign-in", data={"token": READER[:-1]}, headers=OURS)
            assert answer.status_code == status
            assert "set-cookie" not in answer.headers
            assert READER[:-1] not in answer.text
        assert answer.headers["Retry-After"]


async def test_the_cookie_is_for_this_site_and_not_for_scripts() -> None:
    async with client(console_session_hours=2) as http:
        answer = await http.post("/console/sign-in", data={"token": f" {READER}\r\n"}, headers=OURS)
        given = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict", "Max-Age=7200"} <= set(given.split("; "))
        assert "Secure" not in given
        http.base_url = httpx.URL("https://api")
        answer = await http.post("/console/sign-in", data={"token": READER}, headers={"Origin": "https://api"})
        assert "Secure" in answer.headers["Set-Cookie"]
        answer = await http.post("/console/sign-out", headers={"Origin": "https://api"})
        assert "Max-Age=0" in answer.headers["Set-Cookie"]


async def test_without_a_cookie_nothing_is_shown_or_done() -> None:
    async with client() as http:
        for path in ("/", "/console/channels", "/console/messages", "/console/failures", "/console/account"):
            assert (await http.get(path)).headers["Location"] == "/console/sign-in", path
            answer = await http.get(path, headers={"HX-Request": "true"})
            assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/console/sign-in"), path
        assert (await http.get("/console/stream", headers={"Accept": "text/event-stream"})).status_code == 401
        assert (await http.post("/console/channels", data={"action": "register"}, headers=OURS)).status_code == 401


async def test_the_cookie_is_nothing_to_the_api_itself() -> None:
    async with client() as http:
        await signed_in(http, ADMIN)
        assert COOKIE in http.cookies
        assert (await http.get("/api/channels")).status_code == 401


@pytest.mark.parametrize(
    ("path", "fields", "scope"),
    [
        ("channels", {"action": "register", "channel": "-1001"}, "write"),
        ("channels", {"action": "sync"}, "write"),
        ("failures", {"action": "one", "id": "1"}, "write"),
        ("account", {"action": "phone", "phone": "+1"}, "admin"),
        ("account", {"action": "cancel"}, "admin"),
    ],
)
async def test_a_scope_is_asked_for_as_by_the_api(
    path: str, fields: dict[str, str], scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telegram_stack.console.asking.Asking.part", _nothing)
    async with client() as http:
        await signed_in(http)
        answer = await http.post(f"/console/{path}", data=fields, headers=OURS)
        assert answer.status_code == 403
        assert f"This needs a token of scope {scope}" in answer.text


async def _nothing(*_given: object, **_more: object) -> Part:
    return Part(problem="not asked")


async def test_pages_let_nothing_in_from_elsewhere() -> None:
    async with client() as http:
        answer = await http.get("/console/sign-in")
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
            assert address.startswith(("/", "#")), address
            if address.startswith("/console/static/"):
                file = await http.get(address)
                assert (file.status_code, "immutable" in file.headers["Cache-Control"]) == (200, True)
        assert (await http.get("/console/static/README.md")).status_code == 404


def test_templates_have_no_inline_script_or_style_and_pass_nothing_unescaped() -> None:
    for path in (HOME / "templates").iterdir():
        text = path.read_text()
        inline = r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|hx-on|javascript:|\|\s*safe"
        assert not re.search(inline, text), path
        assert not re.search(r"""(?:src|href|action)=["']https?:""", text), path


def test_htmx_is_the_file_that_is_noted() -> None:
    [file] = (HOME / "static").glob("htmx-*.min.js")
    noted = (HOME / "static" / "README.md").read_text()
    assert f"`{file.name}`" in noted
    assert hashlib.sha256(file.read_bytes()).hexdigest() in noted
    assert file.name in (HOME / "templates" / "base.html").read_text()


async def test_pages_are_counted_as_the_api_is() -> None:
    def asked() -> float:
        labels = {"method": "GET", "route": "/console/sign-in", "status": "200"}
        return REGISTRY.get_sample_value("telegram_api_requests_total", labels) or 0.0

    before = asked()
    async with client() as http:
        await http.get("/console/sign-in")
    assert asked() == before + 1


class _Gateway:
    """What the gateway's health says, as far as stages look at it."""

    def __init__(self) -> None:
        self.sequence = 0
        self.lag = 0
        self.away = False

    async def health(self) -> dict[str, Any]:
        if self.away:
            raise ApiError(503, "gateway_unavailable", "The gateway: it cannot be reached")
        sink = {"available": True, "lag": self.lag, "oldestSeconds": 40.0, "quarantined": 0, "reason": ""}
        return {
            "connected": True,
            "causes": [],
            "spoolPending": 0,
            "spoolSequence": self.sequence,
            "sinks": {"database": sink},
        }


async def test_rates_come_from_what_each_stage_has_done() -> None:
    gateway, now = _Gateway(), 0.0
    stages = Stages(gateway, WorkerConfig(port=1), lambda: now)  # type: ignore[arg-type]
    await stages.look()
    gateway.sequence, gateway.lag, now = 100, 20, 10.0
    await stages.look()
    found = {stage.name: stage for stage in stages.stages()}
    assert (found["spool"].rate, found["database"].rate) == (10.0, 8.0)
    assert (found["database"].state, found["database"].lag) == ("late", "20 events behind, the first for 40 s")
    assert (found["worker"].state, found["worker"].rate) == ("unknown", None)
    gateway.away, now = True, 20.0
    await stages.look()
    gateway.away, gateway.sequence, gateway.lag, now = False, 5, 0, 30.0  # another spool: it counts anew
    await stages.look()
    [spool] = [stage for stage in stages.stages() if stage.name == "spool"]
    assert spool.points == (10.0, None, None)


def test_a_chart_is_broken_where_nothing_is_known() -> None:
    assert chart((), 240, 40) == []
    assert chart((1.0,), 240, 40) == []
    lines = chart((0.0, 10.0, None, 5.0, 5.0), 240, 40)
    assert [line.count(",") for line in lines] == [2, 2]
    assert lines[0].split()[0].endswith(",39.0")
    assert lines[0].split()[1].endswith(",1.0")
    assert lines[-1].split()[-1].startswith("240.0,")


def test_figures_have_their_units() -> None:
    seconds = (0.012, 4.25, 38.0, 600.0, 18_000.0, 259_200.0)
    assert [duration(value) for value in seconds] == ["12 ms", "4.2 s", "38 s", "10 min", "5 h", "3 d"]
    assert (number(1234567), rate(12.34), rate(None)) == ("1\u202f234\u202f567", "12.3/s", "\u2013")
    now = datetime(2026, 5, 4, tzinfo=UTC)
    assert [ago(now - timedelta(seconds=value), now) for value in (0, 90, -90)] == ["now", "90 s ago", "in 90 s"]


def test_a_migration_is_shown_as_far_as_its_file_is_readable(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    assert migration.progress("") is None
    assert migration.progress(str(file)) is None
    file.write_text("{}")
    assert "cannot be read" in str(migration.progress(str(file)))
    file.write_text(
        '{"begun_at": "2026-05-04T12:00:00Z", "updated_at": "2026-05-04T12:00:00Z", "outcome": null,'
        ' "phases": {"0": {"status": "done"}}}'
    )
    found = migration.progress(str(file))
    assert isinstance(found, migration.Progress)
    titled = found.titled()
    assert len(titled) == 12
    assert titled[0][2] is not None and titled[1] == (1, "backup", None)

"""Who may see a page and do what it offers, and how its answer goes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from telegram_stack.api import params
from telegram_stack.api.errors import ApiError
from telegram_stack.api.operation import Guard, counted
from telegram_stack.api.tokens import Token
from telegram_stack.console.asking import Asking, Part
from telegram_stack.console.rendering import Rendering
from telegram_stack.console.session import COOKIE, Sessions, prefers_html, same_origin

SIGN_IN = "/console/sign-in"
_FIELDS = 1100  # a page's failures, each with its box


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in; `form` is what a page has sent."""

    request: Request
    token: Token
    asking: Asking
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **given: Any) -> Any:
        """An operation's answer. Raises ApiError."""
        return await self.asking.ask(self.token, method, path, **given)

    async def part(self, method: str, path: str, **given: Any) -> Part:
        """An operation's answer, or why there is none."""
        return await self.asking.part(self.token, method, path, **given)

    def field(self, name: str) -> str:
        """What was typed in, without spaces around it; empty when nothing was."""
        return next(iter(self.form.get(name, ())), "").strip()

    def query(self, name: str) -> str:
        """A parameter of the page's address; empty when there is none."""
        return self.request.query_params.get(name, "").strip()


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page. `show` gives its template what it shows; `act` does what one of its buttons says, and tells so.

    `same` names what a browser has that asks again (``seen``): when it has just this, it is told that nothing changed.
    """

    path: str
    title: str
    template: str
    show: Callable[[Visit], Awaitable[dict[str, Any]]]
    act: Callable[[Visit], Awaitable[str]] | None = None
    same: Callable[[Visit, dict[str, Any]], bool] = lambda _visit, _values: False


@dataclass(frozen=True)
class Notice:
    """What became of what was asked for."""

    good: bool
    words: str


class HtmlRoute(Route):
    """A route for browsers only: whoever prefers JSON is left to the next one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Not without a taste for HTML."""
        if scope["type"] == "http" and prefers_html(Request(scope).headers):
            return super().matches(scope)
        return Match.NONE, {}


class Door:
    """Lets in who is signed in, and sends others to sign in."""

    def __init__(self, guard: Guard, sessions: Sessions, asking: Asking, rendering: Rendering) -> None:
        self._guard = guard
        self._sessions = sessions
        self._asking = asking
        self._rendering = rendering

    def page(self, page: Page) -> Route:
        """`page` behind the door."""

        async def visited(visit: Visit) -> Response:
            notice, status = None, 200
            if visit.request.method == "POST" and page.act is not None:
                try:
                    notice = Notice(True, await page.act(visit))
                except ApiError as error:
                    notice, status = Notice(False, error.message), error.status
            values = await page.show(visit)
            if notice is None and page.same(visit, values):
                return Response(status_code=204)
            return self._rendering.page(page.template, visit.request, status, token=visit.token, page=page,
                                        notice=notice, **values)  # fmt: skip

        return self.visit(page.path, visited, methods=("GET", "POST") if page.act else ("GET",))

    def visit(self, path: str, answer: Callable[[Visit], Awaitable[Response]], methods: Sequence[str]) -> Route:
        """`answer` for whoever is signed in."""

        async def let_in(request: Request) -> Response:
            token = self._sessions.token(request.cookies.get(COOKIE, ""))
            if token is None:
                return _to_sign_in(request)
            address = request.client.host if request.client else "unknown"
            self._guard.admit(request, f"console {token.name} at {address}")
            form = await sent(request) if request.method == "POST" else {}
            return await answer(Visit(request, token, self._asking, form))

        return self.open(path, let_in, methods)

    def open(self, path: str, answer: Callable[[Request], Awaitable[Response]], methods: Sequence[str]) -> Route:
        """`answer` for everybody, counted, its refusals as pages."""

        def refused(request: Request, error: ApiError) -> Response:
            return self._rendering.page("refused.html", request, error.status, problem=error.message)

        return (HtmlRoute if path == "/" else Route)(path, counted(path, answer, refused), methods=list(methods))


async def sent(request: Request) -> dict[str, list[str]]:
    """The fields of a form of ours. Raises ApiError 403 when another page has sent it, 422 when it has too many."""
    if not same_origin(request.headers):
        raise ApiError(
            403,
            "other_origin",
            "This did not come from a page of this console. Where a proxy stands before the API, it must pass the "
            "header Host on as it was; otherwise open the console again and repeat it there.",
        )
    try:
        text = (await params.content(request)).decode()
        return parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError as error:
        raise ApiError(422, "invalid", "The form cannot be read: open the page again") from error


def _to_sign_in(request: Request) -> Response:
    """A script's request cannot follow to another page by itself: it is told to go there."""
    if "HX-Request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
    if request.method == "GET" and prefers_html(request.headers):
        return RedirectResponse(SIGN_IN, 303)
    raise ApiError(401, "signed_out", "You are signed out: sign in again")

"""Templates to pages, under a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack import program
from telegram_stack.api.tokens import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telegram_stack.console.door import Page

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With no-referrer a browser would not tell which page has sent a form.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie",
}


class Rendering:
    """The pages' templates and files, all read at the start but for the templates, which are read once each."""

    def __init__(self, pages: Sequence[Page]) -> None:
        """`pages` are what every page leads to."""
        self._files = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir() if path.suffix in _TYPES}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "static": self.address,
            "version": program.version(),
            "Scope": Scope,
            "pages": pages,
        }
        self._environment.filters |= {"utc": utc, "ago": ago, "duration": duration, "number": number, "rate": rate}

    def page(self, template: str, request: Request, status: int = 200, **values: Any) -> Response:
        """The page; `values` are what its template names."""
        common = {"here": request.url.path, "now": datetime.now(UTC), "token": None, "notice": None, "page": None}
        text = self._environment.get_template(template).render(common | values)
        return Response(text, status, HEADERS, "text/html")

    def address(self, name: str) -> str:
        """Where a file is; another content has another address, so that browsers may keep it."""
        return f"/console/static/{name}?v={hashlib.sha256(self._files[name]).hexdigest()[:12]}"

    def file(self, name: str) -> Response | None:
        """A file; None when there is none of that name."""
        if name not in self._files:
            return None
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._files[name], headers=headers, media_type=_TYPES[Path(name).suffix])


def utc(moment: datetime) -> str:
    """A time with its zone, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that tells it."""
    seconds = (now - moment).total_seconds()
    return "now" if abs(seconds) < 1 else f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """A length of time with its unit: ``12 ms``, ``4.2 s``, ``38 s``, ``12 min``, ``5 h``, ``3 d``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def number(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(value: float | None) -> str:
    """Events a second; a dash where it is not known."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.1f}/s" if value < 100 else f"{number(value)}/s"

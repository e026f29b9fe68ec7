"""``/openapi.json``, and ``/docs``: the same for people, as one page that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api.openapi import document
from telegram_stack.api.operation import Operation

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem }
details { border: 1px solid; border-radius: .3rem; margin: .5rem 0; padding: .3rem .7rem }
summary { cursor: pointer; overflow-wrap: anywhere }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem }
pre { overflow-x: auto }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Docs:
    """Describes `operations`, and itself."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        found = document([*operations, *self.operations()])
        self._json = msgspec.json.encode(found)
        self._page = _page(found).encode()

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/openapi.json",
                endpoint=self.openapi,
                summary="This description, for programs",
                scope=None,
                answer=dict[str, Any],
            ),
            Operation(
                method="GET",
                path="/docs",
                endpoint=self.page,
                summary="This description, for people",
                scope=None,
                media=("text/html",),
            ),
        )

    async def openapi(self, _request: Request) -> Response:
        """The document."""
        return Response(self._json, media_type="application/json", headers={"Cache-Control": "no-cache"})

    async def page(self, _request: Request) -> Response:
        """The page."""
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return Response(self._page, media_type="text/html", headers=headers)


def _page(found: dict[str, Any]) -> str:
    info = found["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_code(schema)}</details>'
        for name, schema in found["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style><main><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info['description'])} Version {escape(info['version'])}. "
        f'<a href="openapi.json">OpenAPI document</a></p>'
        f"<h2>Operations</h2>{operations}<h2>Types</h2>{schemas}</main></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(item['name'])}</code><td>{escape(item['in'])}{', required' if item['required'] else ''}"
        f"<td>{escape(item['description'])}<td><code>{escape(_compact(item['schema']))}</code>"
        for item in operation["parameters"]
    )
    table = f"<h3>Parameters</h3><table><tr><th>Name<th>Where<th>What<th>Values{rows}</table>" if rows else ""
    body = operation.get("requestBody")
    given = f"<h3>Body</h3>{_content(body['content'])}" if body else ""
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer['description'])}<td>{_content(answer.get('content', {}))}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"<p>{escape(operation.get('description', 'Needs no token.'))}</p>{table}{given}"
        f"<h3>Answers</h3><table>{answers}</table></details>"
    )


def _content(content: dict[str, Any]) -> str:
    return "<br>".join(f"{escape(media)}: {_type(part['schema'])}" for media, part in content.items())


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    return f"<code>{escape(_compact(schema))}</code>"


def _compact(schema: dict[str, Any]) -> str:
    return msgspec.json.encode(schema).decode()


def _code(schema: dict[str, Any]) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(schema)).decode())}</pre>"

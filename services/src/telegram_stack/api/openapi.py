"""The OpenAPI 3.1 document, out of the operations and of the types that are read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from telegram_stack import program
from telegram_stack.api.answers import Failure
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param
from telegram_stack.api.tokens import HEADERS

_REFERENCE = "#/components/schemas/{name}"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document, ready for JSON."""
    types = [kind for operation in operations for kind in _types(operation)]
    schemas, components = msgspec.json.schema_components([*types, Failure], ref_template=_REFERENCE)
    found = dict(zip([*types, Failure], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Telegram gateway API",
            "version": program.version(),
            "description": "Messages of Telegram channels: read, search, export, stream; and what was made of them.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _schemes()},
    }


def _types(operation: Operation) -> Iterable[Any]:
    return [kind for kind in (operation.answer, operation.body, *operation.others.values()) if kind is not None]


def _schemes() -> dict[str, Any]:
    keys = {name: {"type": "apiKey", "in": "header", "name": name} for name in HEADERS}
    return {**keys, "Bearer": {"type": "http", "scheme": "bearer"}}


def _operation(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    words = re.findall(r"[A-Za-z0-9]+", operation.path.removeprefix("/api"))
    made: dict[str, Any] = {
        "operationId": "_".join([operation.method.lower(), *words]),
        "summary": operation.summary,
        "security": [] if operation.scope is None else [{name: []} for name in _schemes()],
        "parameters": [_parameter(param) for param in operation.params],
        "responses": _responses(operation, schemas),
    }
    if operation.scope is not None:
        made["description"] = f"Needs a token of scope {operation.scope.name.lower()}."
    if operation.body is not None:
        needed = any(field.required for field in msgspec.structs.fields(operation.body))
        content = {"application/json": {"schema": schemas[operation.body]}}
        made["requestBody"] = {"required": needed, "content": content}
    return made


def _parameter(param: Param[Any]) -> dict[str, Any]:
    schema = param.reader.schema
    if param.default is not None and not param.required:
        schema = schema | {"default": param.default}
    if param.many:
        schema = {"type": "array", "items": schema}
    return {
        "name": param.name,
        "in": param.place,
        "required": param.required or param.place == "path",
        "description": param.description + ("; may be repeated, or have commas" if param.many else ""),
        "schema": schema,
    }


def _responses(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    schema = {"type": "string"} if operation.answer is None else schemas[operation.answer]
    responses = {operation.status: {"content": {media: {"schema": schema} for media in operation.media}}}
    if operation.tagged:
        responses[304] = {}
    failure = {"content": {"application/json": {"schema": schemas[Failure]}}}
    responses |= dict.fromkeys(sorted(_errors(operation)), failure)
    for status, kind in operation.others.items():
        responses[status] = {"content": {"application/json": {"schema": schemas[kind]}}}
    return {
        str(status): {"description": HTTPStatus(status).phrase, **response} for status, response in responses.items()
    }


def _errors(operation: Operation) -> set[int]:
    """The statuses that an operation may answer with, by what it needs."""
    errors = set(operation.errors)
    if operation.scope is not None:
        errors |= {401, 403, 429, 503}
    if operation.params or operation.body:
        errors.add(422)
    if operation.body:
        errors |= {408, 413}
    return errors

"""Errors as clients see them: the legacy envelope, with status, code and the fields at fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one parameter or one member of the body."""

    field: str
    reason: str


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.errors = list(errors)
        self.headers = headers or {}


def invalid(errors: Sequence[FieldError]) -> ApiError:
    """422: the request cannot be understood."""
    return ApiError(422, "invalid", "; ".join(f"{error.field}: {error.reason}" for error in errors), errors)


def not_found(what: str) -> ApiError:
    """404."""
    return ApiError(404, "not_found", f"{what} does not exist")

"""One frozen struct a program, one loader that reports every missing or bad field at once."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(Exception):
    """The file cannot be used. ``problems`` has a sentence for each bad field."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load(path: Path, kind: type[T]) -> T:
    """Read the TOML file `path` as `kind`; raises ConfigError with everything that is wrong with it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"is not TOML: {error}"]) from error
    problems: list[str] = []
    _check(data, kind, "", problems)
    if problems:
        raise ConfigError(path, problems)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(path, [str(error)]) from error


def _check(data: dict[str, Any], kind: type[msgspec.Struct], prefix: str, problems: list[str]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for unknown in sorted(set(data) - set(fields)):
        problems.append(f"unknown key {prefix}{unknown}; known: {', '.join(sorted(fields))}")
    for name, field in fields.items():
        hint = _struct(hints[field.name])
        if name not in data:
            if field.required:
                problems.append(f"missing key {prefix}{name}")
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(data[name], dict):
            _check(data[name], hint, f"{prefix}{name}.", problems)
        else:
            try:
                msgspec.convert(data[name], hint)
            except msgspec.ValidationError as error:
                problems.append(f"bad value of {prefix}{name}: {error}")


def _struct(hint: Any) -> Any:
    """The struct of a section that may be left out, any other hint as it is."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    return kinds[0] if kinds else hint


def read_secret(name: str) -> str:
    """The secret in file `name`: a systemd credential, or an absolute path.

    Raises ConfigError that names the file, never its content.
    """
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(path, [f"the secret cannot be read: {error.strerror}"]) from error

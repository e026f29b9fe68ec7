"""Runs on a target: keeps the compiled form of what its Python imports from zip archives.

Ansible sends the sources of each module as an archive, which Python compiles anew for every task: half of what a task
takes. Debian's Python finds this file, and the .pth file beside it that imports it, in its dist-packages.
"""
# ruff: noqa: PTH105, PTH123
# Every start of that Python runs this: pathlib would take longer to import than all of it.

import _imp
import marshal
import os
import sys
import zipimport
from types import CodeType

FOLDER = "/var/cache/zipped-modules"
"""Root's; others read it only."""

_compile = zipimport._compile_source  # type: ignore[attr-defined]


def _kept(path: str, source: bytes) -> CodeType:
    """`source` compiled: now, or by an earlier process."""
    name = f"{FOLDER}/{sys.implementation.cache_tag}-{_imp.source_hash(0, source).hex()}"
    try:
        with open(name, "rb") as file:
            found: CodeType = marshal.loads(file.read())  # noqa: S302 - nobody but root writes there
            return found
    except (OSError, EOFError, ValueError, TypeError):
        code: CodeType = _compile(path, source)
        _keep(name, code)
        return code


def _keep(name: str, code: CodeType) -> None:
    part = f"{name}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(marshal.dumps(code))
        os.replace(part, name)
    except OSError:  # a full disk, or a user who may not write there
        pass


zipimport._compile_source = _kept  # type: ignore[attr-defined]

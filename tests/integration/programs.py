"""Our own programs as processes from the source tree: command line, environment, credentials."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet
from tests.integration.servers import ROOT


def line(module: str) -> list[str]:
    """The command line of `module`'s ``main``, for example ``gateway.main``."""
    return [sys.executable, "-c", f"import sys; from telegram_stack.{module} import main; sys.exit(main())"]


def environment(folder: Path) -> dict[str, str]:
    """What a program finds around it; its credentials are in `folder`."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT / "services" / "src"), str(folder / "packages")]),
        "CREDENTIALS_DIRECTORY": str(folder / "credentials"),
    }


def prepare(folder: Path, secrets: Mapping[str, str]) -> None:
    """Credentials (with a session's key of their own), a folder for state, and the handlers, below `folder`."""
    (folder / "credentials").mkdir()
    (folder / "state").mkdir(mode=0o700)
    own = {"session-key": Fernet.generate_key().decode(), "api-hash": "0" * 32}
    for name, secret in (own | dict(secrets)).items():
        (folder / "credentials" / name).write_text(secret)
    _register_handler(folder / "packages" / "telegram_stack_handlers-1.dist-info")


def _register_handler(package: Path) -> None:
    """What installing the wheel would do: a source tree has no entry points."""
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: telegram-stack-handlers\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[telegram_stack.handlers]\nsignals = telegram_stack.worker.signal_handler:SignalHandler\n"
    )

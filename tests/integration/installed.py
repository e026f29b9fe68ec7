"""The collection as users have it: built, installed into a folder of collections, called away from any clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.servers import ROOT

PROGRAMS = Path(sys.executable).parent
"""Where the tools' ansible-core has its programs."""


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections that holds ours, built and installed as a user would."""
    folder = tmp_path_factory.mktemp("collections")
    galaxy = [str(PROGRAMS / "ansible-galaxy"), "collection"]
    subprocess.run([sys.executable, str(ROOT / "roles/common/files/wheelhouse.py"), "wheel"], check=True)
    subprocess.run([*galaxy, "build", "--output-path", str(folder)], cwd=ROOT, check=True)
    (package,) = folder.glob("tradingsystem-telegram_stack-*.tar.gz")
    install = [*galaxy, "install", str(package), "-p", str(folder), "--no-deps"]
    subprocess.run(install, cwd=folder, env=away_from_the_clone(), check=True)
    return folder


def content(collections: Path) -> Path:
    """The root of the installed collection."""
    return collections / "ansible_collections/tradingsystem/telegram_stack"


def away_from_the_clone() -> dict[str, str]:
    """The environment without what `make` sets: the clone's configuration names it as an installed collection."""
    return {name: value for name, value in os.environ.items() if name not in ("ANSIBLE_CONFIG", "PYTHONPATH")}


def call(program: Path, path: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs in `folder`; `path` is where it finds collections. Its errors are in its output."""
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=away_from_the_clone() | {"ANSIBLE_COLLECTIONS_PATH": path, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )

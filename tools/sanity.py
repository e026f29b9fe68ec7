"""Runs ansible-test sanity on the built collection. usage: python -m tools.sanity PACKAGE"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path("~/.ansible/test/cache").expanduser()
BOOTSTRAP = "import ensurepip\nensurepip.bootstrap(upgrade=True)\n"


def offer_pip() -> None:
    """ansible-test downloads pip's installer from outside PyPI unless its cache has one; Python's own serves."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("get_pip_24_2.py", "get_pip_25_2.py"):
        if not (CACHE / name).exists():
            (CACHE / name).write_text(BOOTSTRAP)


def main(package: Path) -> int:
    """The result of the sanity tests of `package`, run where ansible-test wants a collection to be."""
    offer_pip()
    with tempfile.TemporaryDirectory() as folder:
        install = ["ansible-galaxy", "collection", "install", str(package), "-p", folder, "--no-deps", "--force"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        root = Path(folder) / "ansible_collections" / "tradingsystem" / "telegram_stack"
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ANSIBLE_CONFIG")
        }
        versions = f"{sys.version_info.major}.{sys.version_info.minor}"
        command = ["ansible-test", "sanity", "--venv", "--python", versions, "--color", "no"]
        done = subprocess.run(command, cwd=root, env=environment, check=False)
        shutil.rmtree(root / "tests" / "output", ignore_errors=True)
    return done.returncode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))

"""Makes the virtual environment that `make` works in; needs only python3 (and root to install a missing venv).

usage: bootstrap.py VENV LOCKFILE
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)


def run(problem: str, *command: str | Path) -> None:
    """Run `command` without a word; when it fails, end with what it said and `problem`."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [*map(str, command)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout.strip()}\n{problem}, then run make again.")


def check_python() -> None:
    """End with a sentence where Python is too old."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}")


def install_venv_package() -> None:
    """Debian ships ensurepip apart; install it where we may, else say how."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0:
        sys.exit(f"Python's venv module is missing; install it, then run make again: sudo apt-get install {package}")
    print(f"Installing {package}", flush=True)
    problem = f"{package} could not be installed, the reason stands above; mend it or install it yourself"
    run(problem, "apt-get", "update", "-qq")
    run(problem, "apt-get", "install", "-yqq", "--no-install-recommends", package)


def main(venv: Path, lock: Path) -> None:
    """Create `venv` and install exactly what `lock` names, hashes checked."""
    check_python()
    if venv.is_symlink():
        sys.exit(f"{venv} is a link: what it leads to would be emptied. Remove the link, then run make again.")
    if importlib.util.find_spec("ensurepip") is None:
        install_venv_package()
    print(f"Installing the tools into {venv} (once, a minute or two)", flush=True)
    run(f"No virtual environment could be made in {venv}; mend that", sys.executable, "-m", "venv", "--clear", venv)
    run(
        f"What {lock} names could not be installed, pip's reason stands above; see that pip reaches its package index",
        *(venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"),
        *("--require-hashes", "--requirement", lock),
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

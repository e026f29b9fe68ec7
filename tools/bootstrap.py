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


def install_venv_package() -> None:
    """Debian ships ensurepip apart; install it where we may, else say how."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0:
        sys.exit(f"Python's venv module is missing; install it, then run make again: sudo apt-get install {package}")
    print(f"Installing {package}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(
        ["apt-get", "install", "-yqq", "--no-install-recommends", package],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


def main(venv: Path, lock: Path) -> None:
    """Create `venv` and install exactly what `lock` names, hashes checked."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}")
    if importlib.util.find_spec("ensurepip") is None:
        install_venv_package()
    print(f"Installing the tools into {venv} (once, a minute or two)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    pip: list[str | Path] = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-compile", "--require-hashes", "--requirement", lock], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

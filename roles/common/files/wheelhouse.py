"""Collects on the controller the wheels that a host installs, so that the host needs no package index.

    wheelhouse.py house --python 3.13.5 --machine x86_64 --glibc 2.41 [--ready FOLDER]
    wheelhouse.py wheel

``house`` gathers the services' wheel and everything that services/requirements.lock names for that host, each file
checked against its locked hash, and prints one JSON object: ``folder`` and ``archive`` (the same files as folder and
tar), ``release`` (version and hash of the content) and ``changed``. With ``--ready`` it takes a folder that was
gathered before, on a machine with an index. ``wheel`` builds the services' wheel into the folder from which the
collection's package carries it. Everything is cached in ``$XDG_CACHE_HOME/telegram-stack/wheelhouse``.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import canonicalize_name, parse_wheel_filename
except ImportError:  # ansible-core itself depends on it, so only a foreign Python lacks it
    sys.exit(f"{sys.executable} lacks the Python package 'packaging'. Install it there, then run again.")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SERVICES = ROOT / "services"
CARRIED = HERE / "wheels"
PROJECT = "telegram-stack"

SOURCE_ONLY = frozenset({"pyaes"})
"""Pure Python libraries that publish no wheel: theirs is built here."""

OLDEST_GLIBC_MINOR = 5
KEEP_HOUSES = 6
EPOCH = "315532800"
"""1980-01-01, the first moment a zip file can express: the same sources give the same wheel."""


class WheelhouseError(Exception):
    """Nothing usable could be gathered; the message says what, why and what to do."""


@dataclass(frozen=True)
class Target:
    """The host's Python: version as in ``3.13.5``, machine as in ``x86_64``, glibc as in ``2.41``."""

    python: str
    machine: str
    glibc: str

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @property
    def platforms(self) -> list[str]:
        """The wheel platforms that run there, the newest glibc first."""
        newest = int(self.glibc.split(".")[1])
        modern = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, OLDEST_GLIBC_MINOR - 1, -1)]
        return [*modern, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]

    @property
    def tags(self) -> frozenset[Tag]:
        """Every wheel tag that installs there."""
        abis = [f"cp{self.minor[0]}{self.minor[1]}"]
        return frozenset(
            [*cpython_tags(self.minor, abis, self.platforms), *compatible_tags(self.minor, abis[0], self.platforms)]
        )

    def environment(self) -> dict[str, str]:
        """The values that markers in the lock are evaluated with: the host's, not this controller's."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "platform_release": "",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": ".".join(map(str, self.minor)),
            "sys_platform": "linux",
        }


def locked(lock: str, target: Target) -> dict[str, str]:
    """The requirements of `lock` that concern `target`: name to requirement with hashes, markers resolved."""
    chosen: dict[str, str] = {}
    for logical in lock.replace("\\\n", " ").splitlines():
        line = logical.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        specifier, *hashes = line.split("--hash=")
        requirement = Requirement(specifier.strip())
        if not hashes:
            raise WheelhouseError(f"services/requirements.lock has no hash for {requirement.name}: run make lock")
        if requirement.marker is None or requirement.marker.evaluate(target.environment()):
            pins = " ".join(f"--hash={value.strip()}" for value in hashes)
            chosen[canonicalize_name(requirement.name)] = f"{requirement.name}{requirement.specifier} {pins}"
    return chosen


def digest(path: Path) -> str:
    """The file's SHA-256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def requirements_of(wheels: Mapping[str, Path]) -> str:
    """The text of a requirements file that allows exactly these files; `wheels` is by canonical name."""
    lines = []
    for name, path in sorted(wheels.items()):
        lines.append(f"{name}=={parse_wheel_filename(path.name)[1]} --hash=sha256:{digest(path)}\n")
    return "".join(lines)


def wheels_in(folder: Path) -> dict[str, Path]:
    """The wheels of `folder` by canonical name; raises WheelhouseError when two are of one project."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.whl")):
        name = parse_wheel_filename(path.name)[0]
        if name in found:
            raise WheelhouseError(f"{folder} holds both {found[name].name} and {path.name}: remove one")
        found[name] = path
    return found


def check(folder: Path, target: Target, needed: Mapping[str, str]) -> dict[str, Path]:
    """The wheels of `folder`, proven complete and fit for `target`; raises WheelhouseError with all that is wrong."""
    wheels = wheels_in(folder)
    problems = [f"{name} is missing" for name in sorted({*needed, PROJECT} - set(wheels))]
    for name, path in wheels.items():
        if name in needed and name not in SOURCE_ONLY and f"sha256:{digest(path)}" not in needed[name]:
            problems.append(f"{path.name} is not the file that services/requirements.lock names")
        if not parse_wheel_filename(path.name)[3] & target.tags:
            problems.append(
                f"{path.name} is not for Python {'.'.join(map(str, target.minor))} with glibc {target.glibc}"
                f" on {target.machine}"
            )
    if problems:
        raise WheelhouseError(f"The wheels in {folder} do not do: {'; '.join(problems)}.")
    return wheels


def check_ready(folder: Path, target: Target, needed: Mapping[str, str]) -> None:
    """As `check`, for a folder given by the operator: its requirements.txt has to match its files."""
    listing = folder / "requirements.txt"
    if not listing.is_file():
        raise WheelhouseError(f"{folder} is no wheel-house: it has no requirements.txt (common_wheelhouse_dir).")
    wheels = check(folder, target, needed)
    if listing.read_text(encoding="utf-8") != requirements_of(wheels):
        raise WheelhouseError(f"{listing} does not match the wheels beside it: gather the folder again.")


def cache_folder() -> Path:
    """The cache of this user, made when it is missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "telegram-stack" / "wheelhouse"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the cache: several hosts are served by several processes at once."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block succeeds, so that `folder` is complete or absent."""
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run(what: str, *command: str | Path) -> None:
    """Run `command`; raises WheelhouseError with the last words of its output."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
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
        last = " / ".join(line.strip() for line in done.stdout.strip().splitlines()[-3:])
        raise WheelhouseError(f"{what} failed: {last or f'exit code {done.returncode}'}")


def tools(cache: Path) -> Path:
    """The Python of a virtual environment with pip and the locked build tools."""
    lock = SERVICES / "build.lock"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"tools-{version}-{digest(lock)[:12]}"
    python = folder / "bin" / "python"
    complete = folder / ".complete"
    if not complete.exists():  # a virtual environment cannot be renamed into place
        run(
            f"Making a virtual environment on the controller (Debian has that in python{version}-venv)",
            *(sys.executable, "-m", "venv", "--clear", folder),
        )
        run("Installing the build tools", python, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock)
        complete.touch()
    return python


def origin() -> list[Path]:
    """What the services come from: the wheel that the collection's package carries, or in a clone their sources.

    Raises WheelhouseError where neither is.
    """
    wheels = wheels_in(CARRIED) if CARRIED.is_dir() else {}
    if PROJECT in wheels and (ROOT / "MANIFEST.json").is_file():  # a wheel left in a clone may be an old one
        return [wheels[PROJECT]]
    project = SERVICES / "pyproject.toml"
    if not project.is_file():
        raise WheelhouseError(
            f"Neither the services' sources ({SERVICES}) nor their wheel ({CARRIED}) is there:"
            " install the collection again."
        )
    code = (path for path in (SERVICES / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [project, *sorted(code)]


def build(cache: Path, out: Path) -> Path:
    """Build the services' wheel into `out`."""
    run(
        "Building the services' wheel",
        *(tools(cache), "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", out, SERVICES),
    )
    return wheels_in(out)[PROJECT]


def download(cache: Path, target: Target, needed: Mapping[str, str]) -> Path:
    """The folder with every library of the lock for `target`."""
    text = "\n".join(needed.values())
    key = hashlib.sha256("\n".join([text, target.machine, target.glibc]).encode()).hexdigest()[:12]
    folder = cache / f"libraries-{target.minor[0]}.{target.minor[1]}-{key}"
    if folder.is_dir():
        return folder
    with appearing(folder) as scratch, tempfile.TemporaryDirectory() as lists:
        pip = (tools(cache), "-m", "pip")
        exact = ("-q", "--no-deps", "--require-hashes")
        binary, source = Path(lists) / "binary.txt", Path(lists) / "source.txt"
        binary.write_text("\n".join(value for name, value in needed.items() if name not in SOURCE_ONLY))
        source.write_text("\n".join(value for name, value in needed.items() if name in SOURCE_ONLY))
        platforms = [word for platform in target.platforms for word in ("--platform", platform)]
        abi = f"cp{target.minor[0]}{target.minor[1]}"
        run(
            "Downloading the services' libraries (for a controller without a package index, see common_wheelhouse_dir)",
            *(*pip, "download", *exact, "--only-binary=:all:", "--dest", scratch, "--requirement", binary),
            *("--implementation", "cp", "--python-version", target.python),
            *("--abi", abi, "--abi", "abi3", "--abi", "none", *platforms),
        )
        if source.read_text():
            run(
                "Building the libraries that publish no wheel",
                *(*pip, "wheel", *exact, "--no-build-isolation", "--no-binary=:all:", "--no-cache-dir"),
                *("--wheel-dir", scratch, "--requirement", source),
            )
    return folder


def pack(folder: Path, archive: Path) -> None:
    """Write the files of `folder` into `archive`, the same bytes for the same files."""
    partial = archive.with_suffix(".part")
    with tarfile.open(partial, "w") as tar:
        for path in sorted(folder.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.mode, member.size = 0o644, path.stat().st_size
            tar.addfile(member, io.BytesIO(path.read_bytes()))
    partial.rename(archive)


def prune(cache: Path, keep: Path) -> None:
    """Remove the houses not used for longest, with their archives."""
    houses = sorted(cache.glob("house-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in houses[KEEP_HOUSES:]:
        if folder != keep:
            shutil.rmtree(folder)
            folder.with_name(f"{folder.name}.tar").unlink(missing_ok=True)


def gather(cache: Path, target: Target, needed: Mapping[str, str]) -> tuple[Path, bool]:
    """The folder with everything `target` installs, and whether it had to be made."""
    files = origin()
    state = hashlib.sha256("\n".join([*needed.values(), target.machine, target.glibc]).encode())
    for path in files:
        state.update(f"{path.relative_to(ROOT)}:{digest(path)}\n".encode())
    folder = cache / f"house-{target.minor[0]}.{target.minor[1]}-{state.hexdigest()[:12]}"
    if folder.is_dir():
        folder.touch()
        return folder, False
    libraries = download(cache, target, needed)
    with appearing(folder) as scratch:
        for path in libraries.iterdir():
            os.link(path, scratch / path.name)
        if files[0].suffix == ".whl":
            shutil.copy(files[0], scratch)
        else:
            build(cache, scratch)
        wheels = check(scratch, target, needed)
        (scratch / "requirements.txt").write_text(requirements_of(wheels), encoding="utf-8")
    return folder, True


def house(target: Target, ready: Path | None) -> dict[str, object]:
    """What the role needs to know: folder, archive, release, changed."""
    needed = locked((SERVICES / "requirements.lock").read_text(encoding="utf-8"), target)
    cache = cache_folder()
    with alone(cache):
        if ready is None:
            folder, changed = gather(cache, target, needed)
            archive = folder.with_name(f"{folder.name}.tar")
        else:
            check_ready(ready, target, needed)
            folder, changed = ready, False
            archive = cache / f"ready-{digest(ready / 'requirements.txt')[:12]}.tar"
        if not archive.exists():
            pack(folder, archive)
        prune(cache, folder)
    version = parse_wheel_filename(wheels_in(folder)[PROJECT].name)[1]
    release = f"{version}-{digest(folder / 'requirements.txt')[:12]}"
    return {"folder": str(folder), "archive": str(archive), "release": release, "changed": changed}


def carry() -> Path:
    """Build the services' wheel to where the collection's package takes it from; returns it."""
    cache = cache_folder()
    with alone(cache), tempfile.TemporaryDirectory() as scratch:
        wheel = build(cache, Path(scratch))
        shutil.rmtree(CARRIED, ignore_errors=True)
        CARRIED.mkdir()
        return Path(shutil.copy(wheel, CARRIED))


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("house", help="gather what a host installs")
    one.add_argument("--python", required=True, help="the host's Python version, as in 3.13.5")
    one.add_argument("--machine", required=True, help="the host's machine, as in x86_64")
    one.add_argument("--glibc", required=True, help="the host's glibc version, as in 2.41")
    one.add_argument("--ready", type=Path, help="a folder gathered before, to use as it is")
    commands.add_parser("wheel", help="build the wheel that the collection's package carries")
    arguments = parser.parse_args()
    try:
        if arguments.command == "wheel":
            print(carry())
        else:
            target = Target(arguments.python, arguments.machine, arguments.glibc)
            print(json.dumps(house(target, arguments.ready)))
    except WheelhouseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

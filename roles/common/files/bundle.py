"""Everything that a deployment installs, in one archive, for hosts that reach no network.

    bundle.py make --debian 13 [--sources FILE] [--deb FILE …] [--out dist]
    bundle.py open ARCHIVE --debian 13 --machine x86_64

``make`` runs on a Debian machine that reaches Debian's archive and PyPI. apt resolves what the roles install for a host
that has nothing, so the archive holds whatever a host lacks; the machine's own packages do not count. The same packages
and wheels give the same bytes. ``open`` is what a deployment calls: it reads every byte, refuses an archive that is not
as it was made or not for this collection, and prints one JSON object: ``archive``, ``digest`` and ``sums`` (what the
host checks its copy with), ``wheels`` (a folder on this machine) and ``packages`` (those that were asked for).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wheelhouse
from wheelhouse import WheelhouseError

SUMS, MANIFEST, INDEX = "SHA256SUMS", "manifest.json", "debian/Packages"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEEP_WHEELS = 4
AGAIN = "Copy it here again, or make it anew: make bundle"
_MEMBER = re.compile(rf"{SUMS}|{re.escape(MANIFEST)}|(debian|wheels)/[^/]+")
_DEBIAN_SUITE = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|oldoldstable|oldstable|stable|testing)(-updates|-security)?"
)
_EVERYWHERE = (
    *("curl", "openssl", "python3-apt", "python3-psycopg", "python3-redis", "python3-venv"),
    *("pgbouncer", "rabbitmq-server", "redis-server", "redis-tools", "pgbackrest", "restic"),
    *("prometheus", "prometheus-alertmanager"),
    *("haproxy", "nftables"),
    *("prometheus-node-exporter", "prometheus-postgres-exporter", "prometheus-redis-exporter"),
)


class BundleError(Exception):
    """There is no usable bundle; the message says what, why and what to do."""


@dataclass(frozen=True)
class Release:
    """A Debian release: what it ships for all its life, and what the roles install there."""

    codename: str
    python: str
    glibc: str
    packages: tuple[str, ...]

    def target(self, machine: str) -> wheelhouse.Target:
        """Its Python, for the wheels."""
        return wheelhouse.Target(self.python, machine, self.glibc)


RELEASES = {
    "12": Release("bookworm", "3.11.2", "2.36", (*_EVERYWHERE, "postgresql-15")),
    "13": Release("trixie", "3.13.5", "2.41", (*_EVERYWHERE, "postgresql-17", "postgresql-17-timescaledb")),
}


def version() -> str:
    """The collection's version, of its package or of a clone."""
    package = wheelhouse.ROOT / "MANIFEST.json"
    if package.is_file():
        return str(json.loads(package.read_text(encoding="utf-8"))["collection_info"]["version"])
    galaxy = (wheelhouse.ROOT / "galaxy.yml").read_text(encoding="utf-8")
    return str(re.findall(r"(?m)^version: *(\S+)", galaxy)[0])


def cache_folder() -> Path:
    """Where downloads and unpacked wheels are kept, made when it is missing."""
    folder = wheelhouse.cache_folder().with_name("bundle")
    folder.mkdir(exist_ok=True)
    return folder


# -- making ---------------------------------------------------------------------------------------------------------


def apt(what: str, settings: Path, *words: str) -> str:
    """What apt-get prints with only these settings besides the machine's own; raises BundleError with its complaint."""
    command = ["apt-get", "--config-file", str(settings), "--quiet=2", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = " / ".join(line.strip() for line in done.stderr.strip().splitlines()[-3:])
        raise BundleError(f"{what} failed: {last or f'exit code {done.returncode}'}")
    return done.stdout


def sources(codename: str) -> str:
    """Sources of that Debian release, at the archives that this machine's own apt uses."""
    shape = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ["apt-get", "indextargets", "--format", shape, "Created-By: Packages"]
    stanzas = []
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        uri, suite, component, origin = line.split(" ", 3)
        known = _DEBIAN_SUITE.fullmatch(suite)
        if known and component == "main" and (origin == "Debian" or origin.startswith("$")):  # $: lists not fetched yet
            stanzas.append(stanza(uri, f"{codename}{known[1] or ''}"))
    if not stanzas:
        raise BundleError(
            "This machine's apt has no source of Debian's own archive: make the bundle on a Debian machine, or name"
            " sources of that release: --sources FILE"
        )
    return "\n".join(dict.fromkeys(stanzas))


def stanza(uri: str, suite: str) -> str:
    """One of Debian's sources."""
    return f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"


def packages(release: Release, given: Path | None, extra: Iterable[Path]) -> list[Path]:
    """Everything that a host which has nothing must get, downloaded and checked by apt."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and (given or KEYRING.is_file())):
        raise BundleError(
            f"A bundle is made with apt-get, dpkg-deb and {KEYRING}: make it on a Debian machine (on Ubuntu first:"
            " apt-get install debian-archive-keyring)."
        )
    cache = cache_folder()
    kept = cache / f"{release.codename}-{os.uname().machine}"
    asked = [*release.packages, *(str(path.resolve()) for path in extra)]
    with tempfile.TemporaryDirectory() as scratch, wheelhouse.alone(cache):
        settings, listing = Path(scratch) / "apt.conf", Path(scratch) / "listing.conf"
        (Path(scratch) / "debian.sources").write_text(given.read_text() if given else sources(release.codename))
        (Path(scratch) / "status").touch()
        (Path(scratch) / "lists" / "partial").mkdir(parents=True)
        for archives, file in ((kept, settings), (Path(scratch), listing)):
            (archives / "partial").mkdir(parents=True, exist_ok=True)
            file.write_text(configuration(Path(scratch), archives))
        install = ("install", "--yes", "--no-install-recommends")
        apt("Reading the lists of packages", settings, "update")
        lines = apt("Resolving what the roles install", listing, *install, "--print-uris", *asked).splitlines()
        named = [line.split() for line in lines if not line.startswith("'file:")]
        hashes = {words[1]: words[3].removeprefix("SHA256:") for words in named}
        apt("Downloading the packages", settings, *install, "--download-only", *asked)
        for path in kept.glob("*.deb"):
            if path.name not in hashes:
                path.unlink()
            elif wheelhouse.digest(path) != hashes[path.name]:  # apt compares the size alone of what it has already
                path.unlink()
                raise BundleError(f"{path} is not what Debian's archive has, and was removed: make the bundle again.")
    return [*(kept / name for name in sorted(hashes)), *extra]


def configuration(folder: Path, archives: Path) -> str:
    """apt's settings for a resolver of its own: no package is installed, and the machine's state is not touched."""
    return (
        "#clear APT::Update;\n"  # what the machine does after an update of its own
        'APT::Update::Error-Mode "any";\n'  # never a bundle without the security archive
        'Acquire::ForceHash "SHA256";\n'
        f'Dir::State::lists "{folder}/lists/";\n'
        f'Dir::State::status "{folder}/status";\n'
        f'Dir::Etc::sourcelist "{folder}/debian.sources";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        'Dir::Etc::preferences "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        f'Dir::Cache::archives "{archives}/";\n'
        'Dir::Cache::pkgcache "";\n'
        'Dir::Cache::srcpkgcache "";\n'
        'Debug::NoLocking "true";\n'  # of the machine's own dpkg, which is not asked
        'APT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\n'
    )


def member_of(path: Path) -> str:
    """The name of a package in the bundle: as in Debian's archive, without the epoch, whose `%` would be decoded."""
    return f"debian/{re.sub(r'_[0-9]+%3a', '_', path.name)}"


def index_of(debs: Iterable[Path]) -> tuple[str, list[str]]:
    """The text of apt's index of these packages, and each as `name version`."""
    entries, names = [], []
    for path in debs:
        control = subprocess.run(["dpkg-deb", "--field", path], capture_output=True, text=True, check=True).stdout
        name, number = (re.findall(rf"(?m)^{field}: *(\S+)", control)[0] for field in ("Package", "Version"))
        place = f"Filename: ./{member_of(path).partition('/')[2]}\nSize: {path.stat().st_size}\n"
        entries.append(f"{control.rstrip()}\n{place}SHA256: {wheelhouse.digest(path)}\n")
        names.append(f"{name} {number}")
    return "\n".join(entries), names


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file so that its bytes in the archive follow from name and content alone."""
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o644, len(content)
    tar.addfile(member, io.BytesIO(content))


def pack(files: Mapping[str, Path | str], archive: Path) -> None:
    """Write `files`, by member name, and their checksums into `archive`, which is complete or absent."""
    partial = archive.with_name(f".{archive.name}.part")
    sums = []
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, source in sorted(files.items()):
                content = source.encode() if isinstance(source, str) else source.read_bytes()
                sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
                add(tar, name, content)
            add(tar, SUMS, "".join(sums).encode())
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)


def make(debian: str, given: Path | None, extra: list[Path], out: Path) -> Path:
    """Make the bundle for that Debian release and this machine's architecture in `out`; returns it."""
    release, machine = RELEASES[debian], os.uname().machine
    house = Path(str(wheelhouse.house(release.target(machine), None)["folder"]))
    debs = packages(release, given, extra)
    index, content = index_of(debs)
    asked = sorted([*release.packages, *(line.split()[0] for line in content[len(debs) - len(extra) :])])
    manifest = {"version": version(), "debian": debian, "machine": machine, "packages": asked, "content": content}
    files: dict[str, Path | str] = {MANIFEST: json.dumps(manifest, indent=1), INDEX: index}
    files |= {member_of(path): path for path in debs}
    files |= {f"wheels/{path.name}": path for path in house.iterdir()}
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"telegram-stack-bundle-{version()}-debian{debian}-{machine}.tar"
    pack(files, archive)
    return archive


# -- opening --------------------------------------------------------------------------------------------------------


class Sum(io.RawIOBase):
    """A file that keeps the SHA-256 of what is written to it, and nothing else."""

    def __init__(self) -> None:
        self.state = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Add to the sum."""
        self.state.update(data)
        return len(data)


def verify(archive: Path) -> tuple[str, dict[str, bytes]]:
    """The text of its checksums, with manifest and wheels, when every byte is as it was made; raises BundleError."""
    found: dict[str, str] = {}
    kept: dict[str, bytes] = {}
    same = Sum()
    try:
        with (
            tarfile.open(archive, "r:") as tar,
            tarfile.open(fileobj=same, mode="w|", format=tarfile.USTAR_FORMAT) as again,
        ):
            for member in tar:
                file = tar.extractfile(member)
                if file is None or not _MEMBER.fullmatch(member.name) or member.name in found:
                    raise BundleError(f"{archive} is no bundle, or damaged: it holds {member.name!r}. {AGAIN}")
                content = file.read()
                found[member.name] = hashlib.sha256(content).hexdigest()
                add(again, member.name, content)
                if not member.name.startswith("debian/"):
                    kept[member.name] = content
    except OSError as error:
        raise BundleError(f"{archive} cannot be read: {error.strerror or error} (telegram_bundle). {AGAIN}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"{archive} is no bundle, or damaged: {error}. {AGAIN}") from error
    sums = kept.get(SUMS, b"").decode(errors="replace")
    expected = {name: value for value, name in (line.split("  ", 1) for line in sums.splitlines() if "  " in line)}
    problems = [f"{name} is missing" for name in sorted({*expected, MANIFEST, INDEX} - set(found))]
    for name in sorted(set(found) - {SUMS}):
        if expected.get(name) != found[name]:
            problems.append(f"{name} is not the file that {SUMS} names")
    if not problems and same.state.hexdigest() != wheelhouse.digest(archive):
        problems.append("bytes between its files are not as they were written")
    if problems:
        some = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise BundleError(f"{archive} is damaged, and nothing of it is used: {some}. {AGAIN}")
    return sums, kept


def unpack(cache: Path, name: str, kept: Mapping[str, bytes]) -> Path:
    """The wheels as a folder of the cache."""
    folder = cache / name
    if not folder.is_dir():
        with wheelhouse.appearing(folder) as scratch:
            for member, content in kept.items():
                if member.startswith("wheels/"):
                    (scratch / member.partition("/")[2]).write_bytes(content)
    folder.touch()
    for old in sorted(cache.glob("wheels-*/"), key=lambda path: path.stat().st_mtime, reverse=True)[KEEP_WHEELS:]:
        shutil.rmtree(old)
    return folder


def open_bundle(archive: Path, debian: str, machine: str) -> dict[str, object]:
    """What the role needs to know; raises BundleError or WheelhouseError where the bundle does not do."""
    sums, kept = verify(archive)
    manifest = json.loads(kept[MANIFEST])
    other = [
        f"for {what} {manifest[key]}, not {wanted}"
        for key, what, wanted in (
            ("version", "the collection's version", version()),
            ("debian", "Debian", debian),
            ("machine", "the architecture", machine),
        )
        if manifest[key] != wanted
    ]
    if other:
        raise BundleError(
            f"{archive} is {' and '.join(other)}. Name another one in telegram_bundle, or make it: make bundle"
        )
    lacking = sorted(set(RELEASES[debian].packages) - set(manifest["packages"]))
    if lacking:
        raise BundleError(
            f"{archive} lacks {', '.join(lacking)}, which this collection installs. Make it anew: make bundle"
        )
    digest = hashlib.sha256(sums.encode()).hexdigest()
    cache = cache_folder()
    with wheelhouse.alone(cache):
        wheels = unpack(cache, f"wheels-{digest[:12]}", kept)
    target = RELEASES[debian].target(machine)
    lock = (wheelhouse.SERVICES / "requirements.lock").read_text(encoding="utf-8")
    wheelhouse.check_ready(wheels, target, wheelhouse.locked(lock, target))
    return {
        "archive": str(archive.resolve()),
        "digest": digest,
        "sums": sums,
        "wheels": str(wheels),
        "packages": manifest["packages"],
    }


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make", help="make the archive, on a Debian machine that reaches packages and wheels")
    one.add_argument("--debian", required=True, choices=sorted(RELEASES), help="the hosts' release")
    one.add_argument("--sources", type=Path, metavar="FILE", help="apt's sources (deb822) of that release to use")
    one.add_argument(
        "--deb", type=Path, action="append", default=[], metavar="FILE", help="one more package: Grafana's"
    )
    one.add_argument("--out", type=Path, default=Path("dist"), help="folder for the archive (default: dist)")
    two = commands.add_parser("open", help="prove an archive whole and fit, and say what is in it")
    two.add_argument("archive", type=Path)
    two.add_argument("--debian", required=True, choices=sorted(RELEASES))
    two.add_argument("--machine", required=True, help="the host's machine, as in x86_64")
    asked = parser.parse_args()
    try:
        if asked.command == "make":
            archive = make(asked.debian, asked.sources, asked.deb, asked.out)
            print(f"{wheelhouse.digest(archive)}  {archive}")
        else:
            print(json.dumps(open_bundle(asked.archive.expanduser(), asked.debian, asked.machine)))
    except (BundleError, WheelhouseError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

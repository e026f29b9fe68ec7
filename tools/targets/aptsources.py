"""The host's apt sources and options, and what a target gets of them."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_AREAS = ("main", "contrib", "non-free", "non-free-firmware")
_RELEASES = ("stable", "oldstable", "testing", "bullseye", "bookworm", "trixie", "forky")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)")


@dataclass(frozen=True)
class Source:
    """One archive, one suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    @property
    def is_debian(self) -> bool:
        """Whether this is Debian's own archive or a copy of it, not a third party's."""
        return (
            "main" in self.components
            and self.suite.split("-")[0].split("/")[0] in _RELEASES
            and (not self.signed_by or "debian-archive" in self.signed_by)
        )

    def of_release(self, release: str) -> "Source":
        """The same archive for another Debian release."""
        separator, pocket = re.fullmatch(r"[a-z]+([-/]?)(.*)", self.suite).groups()  # type: ignore[union-attr]
        if separator == "/":  # bullseye and older wrote release/updates for security
            separator, pocket = "-", "security"
        components = tuple(area for area in self.components if area in _AREAS)
        return Source(self.uri, f"{release}{separator}{pocket}", components, KEYRING)


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources of a `.sources` file; disabled and source-only stanzas are left out."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components, fields.get("signed-by", ""))


def parse_one_line(text: str) -> Iterator[Source]:
    """Sources of a `.list` file."""
    for line in text.splitlines():
        found = _ONE_LINE.match(line.strip())
        if found:
            options = dict(part.split("=", 1) for part in (found["options"] or "").split() if "=" in part)
            components = tuple(found["components"].split())
            yield Source(found["uri"], found["suite"], components, options.get("signed-by", ""))


def host_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """Every http(s) archive this machine's apt uses."""
    found: list[Source] = []
    for path in (etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))):
        if path.is_file() and path.suffix in (".list", ".sources"):
            parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
            found += [source for source in parse(path.read_text()) if urlsplit(source.uri).scheme in ("http", "https")]
    return found


def for_release(sources: Iterable[Source], release: str) -> list[Source]:
    """The Debian archives among `sources`, pointed at another release, each once."""
    return list(dict.fromkeys(source.of_release(release) for source in sources if source.is_debian))


def as_deb822(sources: Iterable[Source]) -> str:
    """Text of a `.sources` file."""
    return "\n".join(
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\n"
        f"Components: {' '.join(source.components)}\nSigned-By: {source.signed_by}\n"
        for source in sources
    )


def through_proxy(sources: Iterable[Source]) -> list[Source]:
    """The same archives by plain http: targets speak to the lab's proxy alone, which speaks https where the host does.

    Nothing is lost by that: apt trusts signatures, not the transport.
    """
    return [
        Source(f"http://{source.uri.partition('://')[2]}", source.suite, source.components, source.signed_by)
        for source in sources
    ]


def _dump(config: str | None) -> list[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as handle:
        handle.write(config or "")
        handle.flush()
        env = dict(os.environ) if config is None else {**os.environ, "APT_CONFIG": handle.name}
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, env=env, check=True).stdout
    return [line for line in dump.splitlines() if line.startswith("Acquire::") and not line.endswith(' "";')]


def host_options() -> list[str]:
    """The Acquire options this machine's owner set: what differs from apt's own defaults.

    What describes extra indexes of desktop tools and media does not concern a target.
    """
    defaults = set(_dump('Dir::Etc::parts "/dev/null";\nDir::Etc::main "/dev/null";\n'))
    foreign = ("Acquire::IndexTargets", "Acquire::cdrom", "Acquire::Changelogs")
    return [line for line in _dump(None) if line not in defaults and not line.startswith(foreign)]


def is_proxy(option: str) -> bool:
    """Whether an Acquire option says through which proxy to go."""
    return "proxy" in option.split(maxsplit=1)[0].lower()


def host_proxies(options: Iterable[str]) -> dict[str, str]:
    """Proxies for all hosts that the options name, by scheme; what this machine itself must go through."""
    found = {}
    for option in options:
        match = re.fullmatch(r'Acquire::(https?)::Proxy "([^"]+)";', option, re.IGNORECASE)
        if match and match[2].upper() != "DIRECT":
            found[match[1].lower()] = match[2]
    return found

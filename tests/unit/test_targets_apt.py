"""What targets get of the host's apt sources, and the proxy they fetch through."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tools.targets import aptsources
from tools.targets.aptproxy import Archive, Handler, is_immutable
from tools.targets.aptsources import KEYRING, Source

DEB822 = """\
Types: deb deb-src
# a dated copy
URIs: http://archive.example/debian
Suites: bookworm
  bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://archive.example/debian bookworm main non-free-firmware # the archive
deb-src http://archive.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/vendor.asc] https://vendor.example/linux bookworm main
deb cdrom:[Debian]/ bookworm main
"""


def test_both_formats_are_read() -> None:
    assert [(source.uri, source.suite) for source in aptsources.parse_deb822(DEB822)] == [
        ("http://archive.example/debian", "bookworm"),
        ("http://archive.example/debian", "bookworm-updates"),
        ("https://security.example/debian-security", "bookworm-security"),
    ]
    archive, vendor, cdrom = aptsources.parse_one_line(ONE_LINE)
    assert archive == Source("http://archive.example/debian", "bookworm", ("main", "non-free-firmware"))
    assert vendor.signed_by == "/etc/apt/keyrings/vendor.asc"
    assert cdrom.uri.startswith("cdrom:")


def test_a_hosts_files_are_read_but_nothing_that_apt_ignores(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/old.sources.save").write_text(DEB822)
    hosts = [source.uri.split("/")[2] for source in aptsources.host_sources(tmp_path)]
    assert hosts == ["archive.example", "vendor.example", "archive.example", "archive.example", "security.example"]


def test_a_target_gets_debians_archives_alone_for_its_own_release() -> None:
    found = aptsources.for_release([*aptsources.parse_deb822(DEB822), *aptsources.parse_one_line(ONE_LINE)], "trixie")
    assert found == [
        Source("http://archive.example/debian", "trixie", ("main", "contrib"), KEYRING),
        Source("http://archive.example/debian", "trixie-updates", ("main", "contrib"), KEYRING),
        Source("https://security.example/debian-security", "trixie-security", ("main",), KEYRING),
        Source("http://archive.example/debian", "trixie", ("main", "non-free-firmware"), KEYRING),
        Source("cdrom:[Debian]/", "trixie", ("main",), KEYRING),
    ]


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [("stable", "trixie"), ("bookworm-backports", "trixie-backports"), ("bullseye/updates", "trixie-security")],
)
def test_suites_are_renamed_by_their_first_word(suite: str, wanted: str) -> None:
    assert Source("http://archive.example/debian", suite, ("main",)).of_release("trixie").suite == wanted


def test_targets_speak_plain_http_and_read_what_is_written_for_them() -> None:
    source = Source("https://security.example/debian-security", "trixie-security", ("main",), KEYRING)
    text = aptsources.as_deb822(aptsources.through_proxy([source, source]))
    read = list(aptsources.parse_deb822(text))
    assert read == [Source("http://security.example/debian-security", "trixie-security", ("main",), KEYRING)] * 2


def test_the_machines_own_proxies_are_found() -> None:
    options = [
        'Acquire::http::Proxy "http://10.0.0.1:3142";',
        'Acquire::http::Proxy::archive.example "DIRECT";',
        'Acquire::https::Proxy "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
    ]
    assert aptsources.host_proxies(options) == {"http": "http://10.0.0.1:3142"}
    assert [aptsources.is_proxy(option) for option in options] == [True, True, True, False]


class Upstream(BaseHTTPRequestHandler):
    """A Debian archive in small; counts what it is asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b"package" if self.path.endswith(".deb") else b"index"
        if "missing" in self.path:
            self.send_error(404)
            return
        if self.headers.get("If-Modified-Since"):
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if "torn" in self.path else 0)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class Lab:
    """A proxy before an archive, and a way to ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.upstream = serve(type("Counting", (Upstream,), {"asked": self.asked}))
        self.archive_host = f"127.0.0.1:{self.upstream.server_port}"
        archive = Archive(folder, {self.archive_host: "http", "127.0.0.1:1": "http"}, {})
        self.proxy = serve(type("Proxying", (Handler,), {"archive": archive}))

    def get(self, path: str, host: str = "", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.server_port, timeout=10)
        connection.request("GET", f"http://{host or self.archive_host}{path}", headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "apt")
    yield made
    for server in (made.proxy, made.upstream):
        server.shutdown()
        server.server_close()


def test_packages_are_fetched_once_and_indexes_each_time(lab: Lab) -> None:
    for _ in range(2):
        assert lab.get("/pool/a.deb") == (200, b"package")
        assert lab.get("/dists/trixie/InRelease") == (200, b"index")
    assert sorted(lab.asked) == ["/dists/trixie/InRelease", "/dists/trixie/InRelease", "/pool/a.deb"]


def test_apts_question_whether_an_index_changed_is_passed_on(lab: Lab) -> None:
    since = {"If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"}
    assert lab.get("/dists/trixie/InRelease", headers=since) == (304, b"")


def test_hosts_that_the_machines_apt_does_not_use_are_refused(lab: Lab) -> None:
    status, body = lab.get("/pool/a.deb", host="elsewhere.example")
    assert status == 403
    assert b"elsewhere.example is not in the apt sources" in body
    assert lab.asked == []


def test_what_the_archive_refuses_or_breaks_off_is_not_kept(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.get("/pool/missing.deb")[0] == 404
    assert lab.get("/pool/torn.deb")[0] == 504
    assert lab.get("/pool/a.deb", host="127.0.0.1:1")[0] == 504
    assert list(lab.folder.iterdir()) == []
    assert "torn.deb" in capsys.readouterr().err


def test_only_what_never_changes_is_kept() -> None:
    assert is_immutable("/pool/main/a/a_1.0_amd64.deb")
    assert is_immutable("/dists/trixie/main/by-hash/SHA256/abc")
    assert not is_immutable("/dists/trixie/InRelease")

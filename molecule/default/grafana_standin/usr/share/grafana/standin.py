"""Answers as Grafana does when asked for its health, on the address in its environment; nothing else of it is here."""

import http.server
import json
import os
from pathlib import Path

ADDRESS = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
# As Grafana itself, it does not start without its password and its data sources.
Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text()
Path("/etc/grafana/provisioning/datasources/telegram-stack.yml").read_text()
Path("/etc/grafana/provisioning/dashboards/telegram-stack.yml").read_text()
Path(os.environ["CREDENTIALS_DIRECTORY"], "postgres_exporter").read_text()  # which a data source names


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/api/health"
        self.send_response(200 if known else 404)
        self.end_headers()
        if known:
            self.wfile.write(json.dumps({"database": "ok", "version": "0.0.0"}).encode())


http.server.ThreadingHTTPServer(ADDRESS, Health).serve_forever()

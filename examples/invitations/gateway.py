"""A mail service: prints each mail that it is asked to send. ``python gateway.py PORT``."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Gateway(BaseHTTPRequestHandler):
    """Sends what comes under one Idempotency-Key once."""

    sent: set[str] = set()  # noqa: RUF012 - of the whole service

    def do_POST(self) -> None:
        """Print the mail."""
        mail = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Idempotency-Key"] not in self.sent:
            self.sent.add(self.headers["Idempotency-Key"])
            print("{to}: {subject}".format(**json.loads(mail)), flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"success": true, "data": null}')

    def log_message(self, *_: object) -> None:
        """Print mails only."""


def main(port: int) -> None:
    """Serve until it is stopped."""
    server = HTTPServer(("127.0.0.1", port), Gateway)
    print(f"Listening on port {port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))

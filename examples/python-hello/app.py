"""A small backend: says where it runs, and keeps notes in files. Python's standard library only."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NOTES = Path("/srv/notes")
NOTE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
NOTE_MAX_BYTES = 1 << 20


def describe():
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "message": os.environ.get("GREETING", "hello from a machine of my own"),
        "hostname": socket.gethostname(),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "memory_mib": memory_mib,
        "user": os.getuid(),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def reply(self, status, body, content_type="application/json"):
        if not isinstance(body, bytes):
            body = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def note(self):
        """The file of /notes/<name>, or None after a refusal."""
        name = self.path.removeprefix("/notes/")
        if self.path.startswith("/notes/") and NOTE_NAME.match(name):
            return NOTES / name
        self.reply(404, {"error": "there is only /, /healthz and /notes/<name>"})
        return None

    def do_GET(self):
        if self.path == "/":
            self.reply(200, describe())
        elif self.path == "/healthz":
            self.reply(200, b"ok\n", "text/plain")
        elif note := self.note():
            try:
                self.reply(200, note.read_bytes(), "application/octet-stream")
            except FileNotFoundError:
                self.reply(404, {"error": "no such note"})

    do_HEAD = do_GET

    def do_PUT(self):
        length = self.headers.get("Content-Length", "")
        self.close_connection = True  # a refused body is not read
        if not (note := self.note()):
            return
        if not length.isascii() or not length.isdigit() or int(length) > NOTE_MAX_BYTES:
            self.reply(413 if length.isdigit() else 411, {"error": f"a note has at most {NOTE_MAX_BYTES} bytes"})
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            return
        partial = note.with_name(f".{note.name}.{threading.get_ident()}")
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(note)
        self.close_connection = False
        self.reply(201, {"note": note.name, "bytes": len(body)})

    def log_message(self, format, *args):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f"{now} {self.address_string()} {format % args}", flush=True)


def main():
    port = int(os.environ.get("PORT", "8080"))
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    # shutdown() waits for the loop below, so it must not be called on this thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on port {port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    print("asked to end", flush=True)


if __name__ == "__main__":
    sys.exit(main())

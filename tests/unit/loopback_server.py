"""A real HTTP server on loopback that serves files, and fails in the ways that servers fail."""

import ssl
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

PAGE = b"\n<!DOCTYPE html>\n<html><body>The service is down for maintenance.</body></html>"


class LoopbackServer(ThreadingHTTPServer):
    """Serves ``content`` under ``/{behavior}/{name}``.

    Attributes:
        content: name to bytes.
        requests: every (path, Range header or None), in order.
    """

    daemon_threads = True

    def __init__(self, content: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.requests: list[tuple[str, str | None]] = []
        self.scheme = "http"

    def url(self, path: str) -> str:
        """The address of ``path``."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{path}"

    def count(self, behavior: str) -> int:
        """How many requests came for addresses of one behavior."""
        return Counter(path.split("/")[1] for path, _ in self.requests)[behavior]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


def changing(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """Another file at each request, the first two cut off; ranges are of the newest."""
    count = handler.server.count("changing")
    data = bytes([count]) * len(data) if count < 3 else data
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    headers = {"Content_Length": len(data) - start, "ETag": f'"{count}"'}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.head(206 if start else 200, **headers)
    handler.wfile.write(data[start : (start + len(data)) // 2 if count < 3 else None])


def elsewhere(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """Cut off at first, then the start of the file as if it were the rest."""
    if wanted is None and handler.server.count("elsewhere") == 1:
        handler.head(200, Content_Length=len(data), ETag='"1"')
        handler.wfile.write(data[: len(data) // 2])
    elif wanted:
        handler.head(206, Content_Length=len(data), Content_Range=f"bytes 0-{len(data) - 1}/*")
        handler.wfile.write(data)
    else:
        handler.head(200, Content_Length=len(data))
        handler.wfile.write(data)


def drip(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """A byte at a time."""
    handler.head(200, Content_Length=len(data))
    for byte in data[:200]:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.02)


def drip_head(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """A head that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(60):
        handler.wfile.write(b"X-%d: 1\r\n" % i)
        handler.wfile.flush()
        time.sleep(0.05)


def announcing(length: str) -> "Callable[[_Handler, bytes, str | None], None]":
    """The file under a length of the server's choice."""

    def lie(handler: "_Handler", data: bytes, wanted: str | None) -> None:
        handler.head(200, Content_Length=length)
        handler.wfile.write(data)

    return lie


def part(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """A part that nobody asked for."""
    handler.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(data)}")
    handler.wfile.write(data[:10])


def loop(handler: "_Handler", data: bytes, wanted: str | None) -> None:
    """To itself, for ever."""
    handler.head(302, Location=handler.path, Content_Length=0, Connection="close")


LIES = {
    "changing": changing,
    "elsewhere": elsewhere,
    "drip": drip,
    "drip-head": drip_head,
    "absurd": announcing("10e30"),
    "endless": announcing("9" * 30),
    "negative": announcing("-5"),
    "fewer": announcing("1000"),
    "more": announcing("400000"),
    "part": part,
    "loop": loop,
}


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        _, behavior, name = self.path.split("/")
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if behavior == "redirect":
            self.send_response(302)
            self.send_header("Location", f"/serve/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if behavior in ("404", "500") or (behavior == "busy" and self.server.count("busy") < 3):
            self.answer(404 if behavior == "404" else 503, b"sorry")
            return
        data = self.server.content[name]
        if behavior == "page":
            data = PAGE
        elif behavior == "corrupt":
            data = data[:100] + bytes([data[100] ^ 1]) + data[101:]
        elif behavior == "short":  # as if the file on the server were cut off
            data = data[: len(data) // 2]
        if behavior in LIES:
            LIES[behavior](self, data, wanted)
            self.close_connection = True
            return
        start = 0
        if wanted and behavior != "no-range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.answer(416, b"")
                return
        # `cut` and `no-range` hang up halfway through what is left, the first two times.
        cuts = behavior in ("cut", "no-range") and self.server.count(behavior) <= 2
        cuts = cuts or behavior == "always-cut"
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{zlib.crc32(data)}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start : (start + len(data)) // 2 if cuts else None])
        self.close_connection = True

    def head(self, status: int, **headers: object) -> None:
        """The head of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer(self, status: int, body: bytes) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(content: dict[str, bytes], certificate: Path | None = None) -> Iterator[LoopbackServer]:
    """Run a server in a thread; over TLS with a ``certificate`` (PEM, with its key)."""
    with LoopbackServer(content) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

"""A local HTTP server whose answers go wrong in the ways that real ones do."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file of the server, and how it is served.

    Args:
        content: its bytes.
        breaks: bytes that each of the next requests gets before the connection breaks off.
        stated: size that the server states instead of the true one; None: the true one.
        ranges: whether a part can be asked for.
        kind: Content-Type.
        redirect: address that requests are sent to; "": none.
        statuses: status of each of the next answers; then 200.
        sized: whether the size is stated at all.
        marked: whether an ETag is sent.
        asked: the Range header of every request, "" without one.

    """

    content: bytes
    breaks: list[int] = field(default_factory=list)
    stated: int | None = None
    ranges: bool = True
    kind: str = "application/octet-stream"
    redirect: str = ""
    statuses: list[int] = field(default_factory=list)
    sized: bool = True
    marked: bool = True
    asked: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """The ETag of the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'


class Files(dict[str, Served]):
    """The files of a server by path, and its address."""

    address = ""

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests from the files of its server."""

    protocol_version = "HTTP/1.1"
    files: Files

    def log_message(self, *arguments: object) -> None:
        """Write no log."""

    def do_GET(self) -> None:
        served = self.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range", "")
        if served is None:
            self.answer(404)
            return
        served.asked.append(asked)
        if served.redirect:
            self.answer(302, Location=served.redirect)
        elif served.statuses and (status := served.statuses.pop(0)) != 200:
            self.answer(status)
        else:
            self.send(served, asked)

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, served: Served, asked: str) -> None:
        """Send a file or the part of it that is asked for, as far as it goes."""
        total = len(served.content)
        start = 0
        same = self.headers.get("If-Range", served.mark) == served.mark
        if asked and served.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                self.answer(416, Content_Range=f"bytes */{total}")
                return
        body = served.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", served.kind)
        if served.marked:
            self.send_header("ETag", served.mark)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.sized:
            stated = len(body) if served.stated is None else served.stated - start
            self.send_header("Content-Length", str(stated))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)
        self.close_connection = True


@contextmanager
def file_server() -> Iterator[Files]:
    """Serve files on a free port of this machine."""
    files = Files()
    handler = type("FilesHandler", (Handler,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    files.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

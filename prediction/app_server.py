"""The server of app.py: local, without any request to the network, its files in one folder.

Gradio's own settings are fixed here: no analytics, no link to share, no history in the browser.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prediction.app_options import LOOPBACK, AppOptions, address_error
from prediction.app_upload import MEGABYTE

ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
FONTS = ("system-ui", "sans-serif")
STYLE = Path(__file__).parent / "templates" / "app.css"
FORM = 16 * MEGABYTE  # of an upload, beside its files: some hundred bytes for each
# a browser then refuses what a page asks of any other server
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'self'"
)


class Guard:
    """Adds POLICY to every answer; refuses what other pages ask, and uploads that are too large.

    A page elsewhere can have its own name lead to 127.0.0.1, and would then read what is served
    here as its own; or it can send files here without reading the answer.
    """

    def __init__(self, app: Any, local: bool, most: int) -> None:
        self.app = app
        self.local = local
        self.most = most  # bytes of the files of an upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if refusal := self.refusal(dict(scope["headers"])):
            status, reason = refusal
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": reason.encode()})
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self.app(scope, receive, with_policy)

    def refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return the status and the reason of a refused request, None for one to be answered."""
        if self.local and host_name(headers.get(b"host", b"")) not in LOOPBACK:
            return 403, "not the name of this machine"
        origin = headers.get(b"origin")
        if self.local and origin and urlsplit(origin.decode("latin-1")).hostname not in LOOPBACK:
            return 403, "asked by another page"
        if int(headers.get(b"content-length", b"0")) > self.most + FORM:
            return 413, f"more than {self.most // MEGABYTE} MB (--max_mb); choose fewer files"
        return None


def host_name(header: bytes) -> str:
    """Return the name in a request's header Host, without the port."""
    name = header.decode("latin-1")
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


@contextmanager
def private_folder() -> Iterator[None]:
    """Put temporary files of this process into a folder of its own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mvfa-app-") as folder:
        before = (tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR"))
        tempfile.tempdir = folder
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before[0]
            if before[1] is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before[1]


def launch(blocks: Any, options: AppOptions) -> str:
    """Start to serve a page; return its address. Raises UserError."""
    import gradio as gr
    from starlette.middleware import Middleware

    style = STYLE.read_text()
    guard = Middleware(Guard, local=options.local, most=options.max_mb * MEGABYTE)
    host = f"[{options.host}]" if ":" in options.host else options.host  # as gradio wants it
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=options.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            max_file_size=f"{options.max_mb}mb",
            theme=gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace")),
            css=style,
            app_kwargs={"middleware": [guard]},
        )
    except OSError as error:
        raise address_error(options.host, options.port) from error
    return str(address)


@contextmanager
def running(options: AppOptions) -> Iterator[str]:
    """Serve the page; yield its address.

    requirements-app.txt must be installed. Raises UserError if the first detector cannot be
    loaded, or the address is taken.
    """
    os.environ.update(ENVIRONMENT)
    with private_folder():
        from prediction.app_page import make_page
        from prediction.app_work import Workshop

        workshop = Workshop(options)
        try:
            workshop.detector(options.detectors[0])
            blocks = make_page(workshop)
            try:
                yield launch(blocks, options)
            finally:
                blocks.close(verbose=False)
        finally:
            workshop.close()

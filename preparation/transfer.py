"""Fetch a file by HTTP: resumed where it broke off, checked against the size the server states.

What has arrived of FILE is kept as FILE.part, and beside it FILE.part.json: the address, the total
size, and a mark of the content (ETag or Last-Modified) that tells whether the rest of the same
content can be asked for. A file is complete only when its size is the stated one.
"""

import errno
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

from errors import UserError

CONNECT_TIMEOUT = 15.0  # seconds
READ_TIMEOUT = 60.0  # seconds between two packets
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt that makes no progress
HOPS = 10  # redirections followed
CHUNK = 2**16  # bytes
SCHEMES = ("http", "https")
PARTIAL = 206
NOT_SATISFIABLE = 416
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
FORBIDDEN = (401, 403, 407, 451)
GONE = (404, 410)
BY_HAND = "fetch it with a browser and pass it with --from FILE"


class BrokenError(Exception):
    """A transfer that broke off: the rest may arrive on another attempt."""


class PageError(UserError):
    """A web page arrived instead of a file."""


@dataclass(frozen=True)
class Origin:
    """Where a partial file comes from: what FILE.part.json holds."""

    url: str
    mark: str  # ETag, else Last-Modified, else ""
    total: int | None  # bytes of the whole file, as the server stated them


class Part:
    """The partial file of a target, and its origin."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        """Return the bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self) -> Origin | None:
        """Return where it comes from; None if that is not recorded or there is nothing."""
        try:
            return Origin(**json.loads(self.note.read_text())) if self.size() else None
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, origin: Origin) -> None:
        """Empty the file and record where its content will come from."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps(asdict(origin)))

    def remove(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def fetch(url: str, target: Path, title: str) -> Path:
    """Fetch the file at an address, and return the path of the complete `<target>.part`.

    It continues what an earlier call has left. A broken transfer is tried again, five times
    without progress at most. `title` names the file in the progress bar.

    Raises:
        UserError: the file is not there, cannot be had, or is not what was asked for; the server
            does not answer or breaks off again and again; the disk is full.

    """
    import requests

    check_scheme(url, url)
    part = Part(target)
    waits = iter(WAITS)
    furthest = part.size()
    with requests.Session() as session:
        while True:
            try:
                with disk_errors(part):
                    attempt(session, url, part, title)
            except BrokenError as error:
                if part.size() > furthest:
                    waits = iter(WAITS)
                    furthest = part.size()
                wait = next(waits, None)
                if wait is None:
                    give_up(url, part, error)
                time.sleep(wait)
            else:
                return part.path


def give_up(url: str, part: Part, reason: Exception) -> NoReturn:
    """Raise the UserError of a transfer that does not get further."""
    origin = part.origin()
    if origin is None:
        raise UserError(f"{url}: {reason}; try again later, or {BY_HAND}")
    total = f" of {origin.total:,}" if origin.total is not None else ""
    raise UserError(
        f"{url}: {reason}; {part.size():,}{total} bytes are kept in {part.path}, and the same "
        f"command continues from there (or {BY_HAND})"
    )


@contextmanager
def disk_errors(part: Part) -> Iterator[None]:
    """Turn errors of writing into UserError; requests' errors are OSErrors too, and pass."""
    import requests

    try:
        yield
    except requests.RequestException:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left for {part.path}, which has {part.size():,} bytes; make room, and "
                "the same command continues from there"
            ) from error
        raise UserError(
            f"{part.path} cannot be written ({error.strerror}); choose another folder"
        ) from error


def attempt(session: Any, url: str, part: Part, title: str) -> None:
    """Ask for the file, or for what is missing of it, and receive it.

    Raises BrokenError if another attempt may succeed, UserError if none will.
    """
    known = part.origin()
    if known is not None and known.url != url:
        known = None
    offset = 0 if known is None else part.size()
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file as it is
    if known is not None:
        headers["Range"] = f"bytes={offset}-"
        if known.mark:
            headers["If-Range"] = known.mark
    with http_errors(url), follow(session, url, headers) as response:
        if response.status_code == NOT_SATISFIABLE and known is not None:
            check_end(response, part, known, url)
            return
        check_status(response, url)
        check_type(response, url)
        if response.status_code != PARTIAL:
            offset = 0
            known = Origin(url, content_mark(response), stated_size(response))
            part.begin(known)
        elif known is None or not continues(response, offset, known):
            part.remove()
            raise BrokenError("the server sent another part than it was asked for")
        check_space(part, known, offset)
        receive(response, part, known.total, title)


@contextmanager
def follow(session: Any, url: str, headers: dict[str, str]) -> Iterator[Any]:
    """Yield the response to a request after redirections, its body not yet read.

    Raises UserError for too many redirections, one to another scheme than http and https, and one
    from https to http.
    """
    address = url
    for _ in range(HOPS + 1):
        check_scheme(address, url)
        timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
        with session.get(
            address, headers=headers, stream=True, timeout=timeout, allow_redirects=False
        ) as response:
            if not response.is_redirect:
                yield response
                return
            address = urljoin(response.url, session.get_redirect_target(response))
    raise UserError(f"{url} is redirected more than {HOPS} times; {BY_HAND}")


def check_scheme(address: str, origin: str) -> None:
    """Raise UserError for an address that is not asked for a file."""
    try:
        scheme = urlsplit(address).scheme
    except ValueError as error:
        raise UserError(f"{address[:200]!r} is no address ({error})") from error
    if scheme not in SCHEMES or (scheme == "http" and urlsplit(origin).scheme == "https"):
        how = "is" if address == origin else f"redirects to {address[:200]}, which is"
        allowed = "https" if scheme == "http" else " or ".join(SCHEMES)
        raise UserError(f"{origin} {how} no {allowed} address; {BY_HAND}")


@contextmanager
def http_errors(url: str) -> Iterator[None]:
    """Turn the errors of requests into BrokenError or UserError."""
    from requests import exceptions

    lasting = (
        exceptions.SSLError,
        exceptions.InvalidURL,
        exceptions.InvalidSchema,
        exceptions.MissingSchema,
        exceptions.InvalidHeader,
    )
    host = urlsplit(url).hostname
    try:
        yield
    except lasting as error:
        raise UserError(f"{url} cannot be asked ({first_line(error)}); {BY_HAND}") from error
    except exceptions.Timeout as error:
        raise BrokenError(f"no answer from {host} for {READ_TIMEOUT:g} seconds") from error
    except exceptions.ChunkedEncodingError as error:
        raise BrokenError("the server broke off") from error
    except exceptions.ConnectionError as error:
        raise BrokenError(connection_reason(error, host)) from error
    except exceptions.RequestException as error:
        raise UserError(f"{url}: {first_line(error)}; {BY_HAND}") from error


def connection_reason(error: Exception, host: str | None) -> str:
    """Say in words why there is no connection."""
    text = str(error)
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service" in text:
        return f"the name {host} cannot be resolved (is there a network, or is a proxy needed?)"
    if "timed out" in text:
        return f"no answer from {host} for {READ_TIMEOUT:g} seconds"
    if "refused" in text:
        return f"{host} refuses the connection"
    return f"the connection to {host} broke off"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 150 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150]


def check_status(response: Any, url: str) -> None:
    """Raise BrokenError or UserError for a status that brings no file."""
    status = response.status_code
    said = f"{status} {response.reason or ''}".strip()
    if status in TRY_AGAIN:
        raise BrokenError(f"the server answers {said}")
    if status in FORBIDDEN:
        raise UserError(f"{url}: access is refused ({said}); log in with a browser, then {BY_HAND}")
    if status in GONE:
        raise UserError(f"{url}: there is no such file ({said}); it may have moved: {BY_HAND}")
    if status not in (200, PARTIAL):
        raise UserError(f"{url}: the server answers {said}; {BY_HAND}")


def check_type(response: Any, url: str) -> None:
    """Raise PageError for a web page: no file that is fetched here is one."""
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xh")):
        raise PageError(
            f"{url} gives a web page instead of a file (a log-in, a consent, a quota?); open it "
            f"with a browser, save the file and pass it with --from FILE"
        )


def content_mark(response: Any) -> str:
    """Return what tells a server's content from a later one: a strong ETag, or the date."""
    mark: str = response.headers.get("ETag", "")
    if not mark or mark.startswith("W/"):
        mark = response.headers.get("Last-Modified", "")
    return mark


def stated_size(response: Any) -> int | None:
    """Return the size of a response's body in bytes; None if the server does not state it."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def content_range(response: Any) -> tuple[int | None, int | None]:
    """Return where a partial response starts, and the size of the whole file; None: not stated."""
    text = response.headers.get("Content-Range", "").removeprefix("bytes ")
    span, _, total = text.partition("/")
    start = span.partition("-")[0]
    return (
        int(start) if start.isdecimal() else None,
        int(total) if total.isdecimal() else None,
    )


def continues(response: Any, offset: int, known: Origin) -> bool:
    """Return whether a partial response is the rest of what is there."""
    start, total = content_range(response)
    return start == offset and (None in (total, known.total) or total == known.total)


def check_end(response: Any, part: Part, known: Origin, url: str) -> None:
    """Accept a partial file that the server has no rest of, if it is complete.

    Raises UserError, and removes the file, if the server states another size now.
    """
    _, total = content_range(response)
    size = part.size()
    if size == (known.total if total is None else total) and known.total in (None, size):
        return
    part.remove()
    if known.total is not None and total is not None and known.total != total:
        raise UserError(
            f"{url}: the server stated {known.total:,} bytes and now states {total:,}; what had "
            f"arrived is removed: run the command again, or {BY_HAND}"
        )
    raise BrokenError("the server has less than had arrived")


def check_space(part: Part, known: Origin, offset: int) -> None:
    """Raise UserError if the rest of a file does not fit on the disk."""
    free = shutil.disk_usage(part.path.parent).free
    if known.total is not None and known.total - offset > free:
        raise UserError(
            f"no space for {part.path}: {known.total - offset:,} bytes are to come and "
            f"{free:,} are free; make room, and the same command continues"
        )


def receive(response: Any, part: Part, total: int | None, title: str) -> None:
    """Append the body of a response to a partial file.

    Raises BrokenError if it ends before the stated size, UserError if it goes on after it.
    """
    from tqdm import tqdm

    size = part.size()
    bar = tqdm(
        desc=title, total=total, initial=size, unit="B", unit_scale=True, leave=False, disable=None
    )
    response.raw.enforce_content_length = False  # it would drop the last bytes before a break
    with bar, part.path.open("ab") as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
            size += len(chunk)
    if total is not None and size < total:
        raise BrokenError(f"the server broke off after {size:,} of {total:,} bytes")
    if total is not None and size > total:
        part.remove()
        raise UserError(
            f"{response.url}: {size:,} bytes arrived and the server stated {total:,}; what had "
            f"arrived is removed: run the command again, or {BY_HAND}"
        )

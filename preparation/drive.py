"""Fetch a file of Google Drive with gdown: resumed, and Drive's pages told from files."""

import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from errors import UserError
from preparation.transfer import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    WAITS,
    Part,
    connection_reason,
    disk_errors,
    first_line,
)

HOST = "drive.google.com"
PAGE = f"https://{HOST}/file/d/{{}}/view"


def fetch_drive(file_id: str, target: Path, name: str) -> Path:
    """Fetch a file of Google Drive by its id, and return the path of `<target>.part`.

    What has arrived of an incomplete file is kept beside it by gdown, which continues it.

    Raises:
        UserError: Drive gives a page instead of the file (quota, consent), cannot be reached, or
            breaks off again and again; the disk is full. `name` is in the remedy.

    """
    import gdown
    from gdown.exceptions import DownloadError, FileURLRetrievalError
    from requests import RequestException

    part = Part(target)
    if part.note.exists():  # a partial file of another address, which gdown takes for complete
        part.remove()
    part.path.parent.mkdir(parents=True, exist_ok=True)
    shown = sys.stderr.isatty()
    page = PAGE.format(file_id)
    by_hand = f"download {name} --from FILE"
    try:
        with disk_errors(part), redirect_stderr(sys.stderr if shown else StringIO()):
            gdown.download(
                id=file_id,
                output=str(part.path),
                quiet=not shown,
                resume=True,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                retries=len(WAITS),
            )
    except FileURLRetrievalError as error:
        raise UserError(
            f"Google Drive gives no file at {page} (quota used up, consent asked for, or no longer "
            f"public); open it with a browser, save it and run python prepare_data.py {by_hand}"
        ) from error
    except (DownloadError, RequestException, LookupError, ValueError) as error:
        unreachable = "ConnectionPool" in str(error)
        reason = connection_reason(error, HOST) if unreachable else first_line(error)
        raise UserError(
            f"{page} did not arrive ({reason}); the same command continues, or fetch it "
            f"with a browser and run python prepare_data.py {by_hand}"
        ) from error
    return part.path

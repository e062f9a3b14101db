"""Read the small text files of a data folder: shot lists, cases.csv, object.toml, tables."""

import stat
from pathlib import Path

from errors import UserError

MOST_BYTES = 2**26  # of a file: a row for each of a million images
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks; editors of Windows call it Unicode


def read_text(path: Path, form: str) -> str:
    """Return the content of a text file in UTF-8, without a byte order mark; ends of lines stay.

    `form` says what the file should be, for the message, such as "a shot list has lines ...".
    Raises UserError for a file that is absent, unreadable, not regular (reading a pipe would never
    end), larger than MOST_BYTES, or not UTF-8.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a regular file; {form}")
        if found.st_size > MOST_BYTES:
            raise UserError(
                f"{path} has {found.st_size:,} bytes, of at most {MOST_BYTES:,}; {form}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {form}") from error
    if content.startswith(UTF_16):
        raise UserError(f"{path} is text in UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 (byte {error.start}); {form}") from error
    if "\0" in text:
        raise UserError(f"{path} is not text (it has zero bytes); {form}")
    return text

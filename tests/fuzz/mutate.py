"""Change bytes of files: anywhere, at the borders of their structure, within members of ZIP files.

Every choice comes from a random.Random that is passed in.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from random import Random

LARGEST = 2**20  # bytes of a mutated file
EDGE = 400  # bytes of a file's ends, where structure is
NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", "<d", "<f")
# how parts of files begin: places where a changed byte matters more than elsewhere
MARKS = (
    b"PK\3\4",
    b"PK\1\2",
    b"PK\5\6",
    b"\x89PNG",
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"\xff\xd8",
    b"\xff\xc0",
    b"\xff\xda",
    b"II*\0",
    b"MM\0*",
    b"GIF8",
    b"RIFF",
    b"VP8",
    b"BM",
    b"DICM",
    b"n+1\0",
    b"\x1f\x8b",
    b"ustar",
    b"data.pkl",
    b"data_offsets",
    b"__metadata__",
    b"sha256",
    b"\xe0\x7f\x10\x00",  # the pixels of a DICOM file
    b'{"',
)
TOKENS = (
    *MARKS,
    b"\0" * 8,
    b"\xff" * 8,
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\x1b[31m",
    b"../" * 3,
    b"<script>",
    b"NaN",
    b"1e999",
    b"-1",
    b"9" * 400,
    b"null",
    b"[" * 2000,
    b'{"a":' * 500,
    b"%s%n",
    b"cos\nsystem\n(S'true'\ntR.",
)


def position(data: bytes, draw: Random) -> int:
    """Return a place of a file: near its ends, near a mark, or anywhere."""
    if not data:
        return 0
    kind = draw.random()
    if kind < 0.25:
        return draw.randrange(min(EDGE, len(data)))
    if kind < 0.4:
        return len(data) - 1 - draw.randrange(min(EDGE, len(data)))
    if kind < 0.65:
        found = [place for mark in MARKS if (place := data.find(mark)) >= 0]
        if found:
            return min(draw.choice(found) + draw.randrange(48), len(data) - 1)
    return draw.randrange(len(data))


def flip(data: bytes, draw: Random) -> bytes:
    """Change one bit or one byte."""
    if not data:
        return data
    place = position(data, draw)
    by = 1 << draw.randrange(8) if draw.random() < 0.5 else draw.randrange(1, 256)
    return data[:place] + bytes([data[place] ^ by]) + data[place + 1 :]


def insert(data: bytes, draw: Random) -> bytes:
    """Insert a word of some format, or a few random bytes."""
    place = position(data, draw)
    more = draw.choice(TOKENS) if draw.random() < 0.5 else draw.randbytes(draw.randrange(1, 9))
    return data[:place] + more + data[place:]


def overwrite(data: bytes, draw: Random) -> bytes:
    """Put a number at a border, of any width and order, or a word over what is there."""
    place = position(data, draw)
    if draw.random() < 0.3:
        more = draw.choice(TOKENS)
    else:
        form = draw.choice(FORMATS)
        most = 256 ** struct.calcsize(form) - 1
        number = draw.choice(NUMBERS)
        more = struct.pack(form, number if form[1] in "df" else min(number, most))
    return data[:place] + more + data[place + len(more) :]


def delete(data: bytes, draw: Random) -> bytes:
    """Remove some bytes."""
    place = position(data, draw)
    return data[:place] + data[place + draw.choice((1, 2, 4, 16, 200)) :]


def truncate(data: bytes, draw: Random) -> bytes:
    """Keep the beginning, or the end."""
    place = position(data, draw)
    return data[place:] if draw.random() < 0.1 else data[:place]


def repeat(data: bytes, draw: Random) -> bytes:
    """Repeat a piece once or more."""
    start = position(data, draw)
    piece = data[start : start + draw.choice((1, 4, 12, 60, 500, 5000))]
    return data[:start] + piece * draw.choice((2, 3, 40)) + data[start + len(piece) :]


def exchange(data: bytes, draw: Random) -> bytes:
    """Exchange two pieces of equal length."""
    length = draw.choice((1, 2, 4, 8, 32, 300))
    first, second = sorted((position(data, draw), position(data, draw)))
    if second - first < length:
        return data
    one = data[first : first + length]
    other = data[second : second + length]
    between = data[first + length : second]
    return data[:first] + other + between + one + data[second + length :]


CHANGES = (flip, flip, flip, overwrite, overwrite, insert, delete, truncate, repeat, exchange)


def changed(data: bytes, draw: Random) -> bytes:
    """Make one to four changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(CHANGES)(data, draw)[:LARGEST]
    return data


def splice(data: bytes, other: bytes, draw: Random) -> bytes:
    """Return the beginning of one file with the end of another."""
    return (data[: position(data, draw)] + other[position(other, draw) :])[:LARGEST]


def members(data: bytes) -> dict[str, bytes] | None:
    """Return the members of a ZIP file by name; None for other files."""
    if not data.startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError):
        return None


def zipped(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP file, whose checksums are right."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return data.getvalue()


def inside(data: bytes, draw: Random) -> bytes:
    """Change a member of a ZIP file, its name, or whether it is there; checksums are made again.

    The pickle of a file of torch is chosen more often. Of gzip files the content is changed; other
    files as `changed`.
    """
    if data.startswith(b"\x1f\x8b"):
        plain = zlib.decompress(data, wbits=31)
        packer = zlib.compressobj(wbits=31)
        return packer.compress(changed(plain, draw)) + packer.flush()
    contents = members(data)
    if not contents:
        return changed(data, draw)
    pickles = [name for name in contents if name.endswith(".pkl")]
    name = draw.choice(pickles if pickles and draw.random() < 0.6 else list(contents))
    kind = draw.random()
    if kind < 0.8:
        contents[name] = changed(contents[name], draw)
    elif kind < 0.9:
        contents.pop(name)
    else:
        content = contents.pop(name)
        contents[changed(name.encode(), draw).decode("latin-1")[:300] or "x"] = content
    return zipped(contents, draw.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,)))


def mutated(seeds: Sequence[bytes], number: int, draw: Random) -> bytes:
    """Return a changed copy of seed `number`; the others are what it is spliced with."""
    data = seeds[number]
    kind = draw.random()
    if kind < 0.1 and len(seeds) > 1:
        return splice(data, draw.choice(seeds), draw)
    return inside(data, draw) if kind < 0.4 else changed(data, draw)

"""Strategies for files of a structure: JSON, TOML, tables, headers that lie, archives.

What these files say is odd, but they can be parsed: a byte that is changed at random seldom comes
as far. Files of this program get digests that fit, as whoever made them could.
"""

import io
import json
import stat
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import pydicom
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import load, save

from mvfa import detector_file, own_files
from mvfa.methods.mvfa import Mvfa
from prediction.records import line_of, parsed
from tests.fuzz import seeds
from tests.fuzz.seeds import File

Files = SearchStrategy[File]

ODD_TEXTS = ("", " ", "\0", "\n", "\ud800", "nan", "-1", "1e999", "\u202e", "\x1b[2J", "both")
LONG_TEXTS = ("<script>alert(1)</script>", "../../../etc/passwd", "C:\\x", "a" * 5000, "9" * 5000)
TEXTS = st.text(max_size=12) | st.sampled_from([*ODD_TEXTS, *LONG_TEXTS])
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400, -(10**30)]),
    st.floats(allow_subnormal=False),  # a detector sets the processor to flush them
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def as_json(value: Any) -> bytes:
    """Return JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(value).encode()


def paths(document: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all values in nested dictionaries and lists."""
    found = [start] if start else []
    if isinstance(document, Mapping):
        for key, value in document.items():
            found += paths(value, (*start, key))
    elif isinstance(document, list):
        for number, value in enumerate(document[:3]):
            found += paths(value, (*start, number))
    return found


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with one to three values replaced, removed or added."""
    result = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        places = paths(result)
        if not places:
            return draw(VALUES)
        *above, last = draw(st.sampled_from(places))
        owner = result
        for key in above:
            owner = owner[key]
        kind = draw(st.integers(0, 5))
        if kind == 0:
            del owner[last]
        elif kind == 1 and isinstance(owner, dict):
            owner[draw(TEXTS)] = draw(VALUES)
        elif kind < 4:
            owner[last] = draw(like(owner[last]))
        else:
            owner[last] = draw(VALUES)
    return result


def like(value: Any) -> SearchStrategy[Any]:
    """Return values of the type of one."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return NUMBERS
    return TEXTS if isinstance(value, str) else VALUES


def json_files(name: str, document: Any) -> Files:
    """Return JSON files that differ from one in some values, and others of any content."""
    contents = st.one_of(altered(document), altered(document), altered(document), VALUES)
    return contents.map(lambda value: File(name, as_json(value)))


def run_files(folder: Path) -> Files:
    """Return files metrics.json and curves.json of a run."""
    names = ("metrics.json", "metrics.json", "metrics.json", "curves.json")
    return st.one_of(*(json_files(n, json.loads((folder / n).read_text())) for n in names))


def ledgers() -> Files:
    """Return records of downloads."""
    file = seeds.ledgers()[0]
    return json_files(file.name, json.loads(file.data))


def origins() -> Files:
    """Return notes beside a part of a download."""
    file = seeds.origins()[0]
    return json_files(file.name, json.loads(file.data))


def with_digest(file: File) -> File:
    """Return a line of a log of predict.py with a digest that fits, which anyone could make."""
    content = None
    with suppress(ValueError, RecursionError):
        content = json.loads(file.data)
    line = line_of(content) if isinstance(content, dict) else file.data + b"\n"
    return File(file.name, line)


def prediction_logs() -> Files:
    """Return settings of a run of predict.py, and lines of its log."""
    settings, log = seeds.prediction_logs()
    first = parsed(log.data.splitlines(keepends=True)[0])
    rows = json_files(log.name, first).map(with_digest)
    return st.one_of(json_files(settings.name, json.loads(settings.data)), rows)


# ---------------------------------------------------------------------- text


def lines_of(name: str, *parts: SearchStrategy[str]) -> Files:
    """Return text files whose lines are made of parts."""
    line = st.lists(st.one_of(*parts, TEXTS), max_size=6).map("".join)
    text = st.lists(line, max_size=6).map("\n".join)
    coded = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "latin-1"])
    return st.builds(lambda t, e: File(name, t.encode(e, "ignore")), text, coded)


def shot_lists() -> Files:
    """Return shot lists."""
    words = ["n-0: ", "a-0: ", "n-1:", ":", " ", *(f"{name} " for name in seeds.NAMES)]
    return lines_of("2-shot.txt", st.sampled_from(words), st.sampled_from(words))


def toml_files() -> Files:
    """Return files object.toml."""
    keys = ["noun = ", "masks = ", "mask_rule = ", "intensity = ", "cases = ", "other = ", "[a]"]
    values = ["true", "1", "[1, 2]", "{a = 1}", '"any"', '"0:80"', '"1:nan"', '"80:0"', "inf", "'"]
    values += ["'(?P<case>.'", "'(?P<case>a)(?P<case>b)'", "1979-05-27", '"(?P<slice>a)"', '"""']
    pairs = st.builds(str.__add__, st.sampled_from(keys), st.sampled_from(values))
    return lines_of("object.toml", pairs, pairs)


def table(name: str, header: str) -> Files:
    """Return tables, most of them with a header that fits."""
    cells = ["a_1.png", "1", "0", ",", ",", ",", '"', ";", "\r", "good", "valid", "-3", "\u0663"]
    body = lines_of(name, st.sampled_from(cells), st.sampled_from(cells))
    with_header = body.map(lambda file: File(name, f"{header}\n".encode() + file.data))
    return st.one_of(with_header, with_header, body)


def case_tables() -> Files:
    """Return files cases.csv."""
    return table("cases.csv", "file,case,slice")


def image_tables() -> Files:
    """Return tables of images to be converted."""
    return table("table.csv", "image,label,case,split,slice")


def scores() -> Files:
    """Return files scores.csv."""
    return table("scores.csv", "file,label,score,text_score,memory_score,case,slice")


# ---------------------------------------------------------------------- tensors


SIZES = st.integers(-2, 5) | st.sampled_from([2**31, 2**40, 2**62, 2**64, 10**30, 0.5, "1"])
ENTRIES = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from(["F32", "F16", "I8", "BOOL", "C64", "Q4"]), PLAIN),
            "shape": st.lists(SIZES, max_size=9) | PLAIN,
            "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | PLAIN,
        }
    ),
)
TENSORS = ("visual.conv1.weight", "text_projection", "__metadata__", "mvfa_state")


@st.composite
def safetensors(draw: st.DrawFn) -> File:
    """Return a safetensors file whose header lies."""
    names = st.one_of(st.sampled_from(TENSORS), TEXTS)
    header = as_json(draw(st.dictionaries(names, ENTRIES, max_size=3) | VALUES))
    stated = st.one_of(st.just(len(header)), st.sampled_from([0, 2**20, 2**40, 2**63, 2**64 - 1]))
    length = draw(st.one_of(st.just(len(header)), stated))
    return File("x.safetensors", struct.pack("<Q", length) + header + bytes(draw(SMALL)))


SMALL = st.integers(0, 64)


def checkpoints(method: Mvfa) -> Files:
    """Return checkpoints with any description, and the digest of it."""
    adapters = method.state()
    about = {"format": 1, "object": "Brain", "shot": 4, "ended": True, "shots": {"normal": ["a"]}}
    described = altered(about).filter(lambda value: isinstance(value, dict))
    return described.map(lambda value: File("Brain.pth", own_files.encode(adapters, value)))


def detectors(file: File) -> Files:
    """Return detectors with any description, and the digests of it."""
    tensors = load(file.data)
    (length,) = struct.unpack("<Q", file.data[:8])
    about = json.loads(json.loads(file.data[8 : 8 + length])["__metadata__"][detector_file.KEY])

    def described(value: Any) -> File:
        text = json.dumps(value)
        digest = detector_file.text_hash(text)
        metadata = {detector_file.KEY: text, detector_file.DIGEST: digest}
        return File(file.name, save(tensors, metadata=metadata))

    return altered(about).map(described)


# ---------------------------------------------------------------------- scans


ATTRIBUTES = {
    "Rows": "US",
    "Columns": "US",
    "SamplesPerPixel": "US",
    "PlanarConfiguration": "US",
    "BitsAllocated": "US",
    "BitsStored": "US",
    "HighBit": "US",
    "PixelRepresentation": "US",
    "NumberOfFrames": "IS",
    "PhotometricInterpretation": "CS",
    "RescaleSlope": "DS",
    "RescaleIntercept": "DS",
    "WindowCenter": "DS",
    "WindowWidth": "DS",
    "PixelSpacing": "DS",
    "ImagePositionPatient": "DS",
    "ImageOrientationPatient": "DS",
    "SeriesInstanceUID": "UI",
}
BY_KIND: Mapping[str, SearchStrategy[Any]] = {
    "US": st.integers(0, 65535) | st.sampled_from([0, 1, 2, 8, 12, 16, 32, 64, 65535]),
    "IS": st.sampled_from([b"0", b"-1", b"3", b"2147483647", b"99999999999", b"x", b"1\\2", b""]),
    "CS": st.sampled_from([b"RGB", b"PALETTE COLOR", b"YBR_FULL_422", b"MONOCHROME1", b"x", b""]),
    "DS": st.sampled_from(
        [b"0", b"-1", b"1e308", b"nan", b"inf", b"x", b"0\\0", b"1\\0\\0\\1\\0\\0", b"", b"1e-320"]
    ),
    "UI": st.sampled_from([b"", b"1.2.3", b"x/../y", b"1" * 300]),
}


@st.composite
def dicom_file(draw: st.DrawFn, sources: Sequence[Path]) -> File:
    """Return a DICOM file with one to three attributes changed or removed, its pixels as before."""
    path = draw(st.sampled_from(sources))
    dataset = pydicom.dcmread(path)
    for keyword in draw(st.lists(st.sampled_from(sorted(ATTRIBUTES)), min_size=1, max_size=3)):
        kind = ATTRIBUTES[keyword]
        if draw(st.integers(0, 5)) == 0 and keyword in dataset:
            del dataset[keyword]
            continue
        value = draw(BY_KIND[kind])
        raw = struct.pack("<H", value) if kind == "US" else value + b" " * (len(value) % 2)
        tag = pydicom.tag.Tag(keyword)
        element = pydicom.dataelem.RawDataElement(tag, kind, len(raw), raw, 0, False, True)
        dataset._dict[tag] = element
    data = io.BytesIO()
    pydicom.dcmwrite(data, dataset)
    return File(path.name, data.getvalue())


def dicom_files(folder: Path) -> Files:
    """Return DICOM files that state odd sizes, types and places; `folder` holds valid ones."""
    return dicom_file(sorted(folder.glob("*.dcm")))


SINGLE = st.floats(width=32, allow_subnormal=False)
FIELDS = {
    "dim": st.lists(st.integers(-32768, 32767) | st.integers(0, 4), min_size=8, max_size=8),
    "datatype": st.integers(-1, 2400) | st.sampled_from([2, 4, 16, 32, 64, 128, 1024, 2304]),
    "bitpix": st.integers(-1, 300),
    "pixdim": st.lists(SINGLE, min_size=8, max_size=8),
    "vox_offset": SINGLE | st.sampled_from([0.0, 352.0, 1e30, -1.0]),
    "scl_slope": SINGLE,
    "scl_inter": SINGLE,
    "qform_code": st.integers(-2, 9),
    "sform_code": st.integers(-2, 9),
    "quatern_b": SINGLE,
    "srow_x": st.lists(SINGLE, min_size=4, max_size=4),
    "srow_y": st.lists(SINGLE, min_size=4, max_size=4),
    "xyzt_units": st.integers(0, 255),
    "sizeof_hdr": st.sampled_from([348, 540, 0, -1]),
    "magic": st.sampled_from([b"n+1", b"ni1", b"n+2", b"", b"x"]),
}
VOXELS = 120  # bytes behind a header


@st.composite
def nifti_files(draw: st.DrawFn) -> File:
    """Return a NIfTI file whose header lies."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 5, 3))
    header.set_data_dtype("i2")
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3)):
        header.structarr[name] = draw(FIELDS[name])
    return File("a.nii", header.binaryblock + bytes(4) + bytes(range(VOXELS)))


# ---------------------------------------------------------------------- archives


LEADING_OUT = ("../a.png", "/tmp/a.png", "a/../../b", ".", "..", "", "a/", "C:\\a", "a\0b")
OTHER_PLACES = ("Brain_AD/a.png", "Brain_AD", "a" * 300, "x/" * 200 + "y", "\udcff", "\x1b[2J")
PLACES = st.sampled_from([*LEADING_OUT, *OTHER_PLACES]) | st.text(min_size=1, max_size=8)
KINDS = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
    b"Z",
)


MODES = (0, stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)


@st.composite
def tar_files(draw: st.DrawFn) -> File:
    """Return a tar archive of any names and kinds of entries."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for _ in range(draw(st.integers(1, 3))):
            info = tarfile.TarInfo(draw(PLACES).replace("\0", ""))
            info.type = draw(st.sampled_from(KINDS))
            info.linkname = draw(PLACES).replace("\0", "")
            info.mode = draw(st.integers(0, 0o7777))
            content = bytes(draw(SMALL)) if info.type == tarfile.REGTYPE else b""
            info.size = draw(st.sampled_from([0, 2**40])) if not content else len(content)
            try:
                archive.addfile(info, io.BytesIO(content) if content else None)
            except (ValueError, UnicodeError):  # the format has no such entry
                continue
    return File("a.tar", data.getvalue())


@st.composite
def zip_files(draw: st.DrawFn) -> File:
    """Return a ZIP archive of any names and kinds of entries."""
    contents: dict[str, bytes] = {}
    for _ in range(draw(st.integers(1, 3))):
        contents[draw(PLACES).encode("utf-8", "replace").decode()] = bytes(draw(SMALL))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            kind = draw(
                st.sampled_from([0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
            )
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, content)
    return File("a.zip", data.getvalue())


def archives() -> Files:
    """Return archives of both kinds."""
    return st.one_of(tar_files(), zip_files())


def uploads() -> Files:
    """Return ZIP archives."""
    return zip_files()

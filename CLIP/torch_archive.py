"""Read the archives of torch.save and torch.jit.save without running anything. Needs no torch.

An archive is a ZIP file: `data.pkl` is a pickle of everything but numbers, which is read as data
(CLIP.pickles), and each record `data/<key>` holds the numbers of a storage.
"""

import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from CLIP.pickles import MOST_BYTES, Machine, Name, PickleError
from CLIP.stored import ITEM_SIZES, DamagedError, Record, Stored, stored

MOST_RECORDS = 100_000  # of an archive
LARGEST_TEXT = 2**20  # bytes of a file of code
STORAGES = {  # classes of storages of torch, by what they hold
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


class Archive:
    """The ZIP archive that torch.save and torch.jit.save write.

    Raises DamagedError for any other.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.storages: dict[str, Record] = {}
        try:
            self.zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise DamagedError("its ZIP archive is cut off or damaged") from error
        names = self.zip.namelist()
        tops = [name[: -len("data.pkl")] for name in names if name.endswith("data.pkl")]
        if len(tops) != 1 or len(names) > MOST_RECORDS:
            raise DamagedError("it is a ZIP archive, but not one of torch")
        self.top = tops[0]
        if self.has("byteorder") and self.text("byteorder") != "little":
            raise DamagedError("it was written by a machine of another byte order")

    def has(self, name: str) -> bool:
        """Return whether there is a record of a name."""
        return self.top + name in self.zip.NameToInfo

    def text(self, name: str, largest: int = LARGEST_TEXT) -> str:
        """Return a record as text. Raises DamagedError."""
        return self.read(name, largest).decode("utf-8", "replace")

    def read(self, name: str, largest: int) -> bytes:
        """Return the bytes of a record, whose CRC is compared. Raises DamagedError."""
        try:
            with self.zip.open(self.top + name) as record:
                data = record.read(largest + 1)
                if len(data) > largest:
                    raise DamagedError(f"its record {name} has more than {largest} bytes")
                record.read(1)  # at the end the CRC is compared
        except ZIP_ERRORS as error:
            raise DamagedError(f"its record {name} is missing or damaged") from error
        return data

    def storage(self, identity: Any) -> Record:
        """Return where a storage lies, of a persistent id ("storage", class, key, device, count).

        Raises DamagedError.
        """
        kind, cls, key, _, count = identity
        dtype = STORAGES.get(cls.name) if isinstance(cls, Name) else None
        if dtype is None and str(cls) == "torch.storage.UntypedStorage":
            dtype = "uint8"
        if kind != "storage" or dtype is None or not isinstance(key, str):
            raise DamagedError(f"it holds numbers of the type {getattr(cls, 'name', cls)}")
        if key not in self.storages:
            self.storages[key] = self.locate(f"data/{key}", dtype)
        record = self.storages[key]
        if record.size != count * ITEM_SIZES[dtype] or record.dtype != dtype:
            raise DamagedError(f"its record data/{key} has another size than stated")
        return record

    def locate(self, name: str, dtype: str) -> Record:
        """Return where a record lies that is not compressed. Raises DamagedError."""
        try:
            info = self.zip.getinfo(self.top + name)
            self.file.seek(info.header_offset)
            header = self.file.read(30)
            magic, flags, method = struct.unpack("<4s2x2H", header[:10])
            lengths = struct.unpack("<2H", header[26:])  # of the name and the extra field
            written = self.file.read(lengths[0])
        except (KeyError, struct.error, OSError, ValueError) as error:
            raise DamagedError(f"its record {name} is missing or damaged") from error
        start = info.header_offset + 30 + sum(lengths)
        if method or info.compress_type:
            raise DamagedError("its tensors are compressed, which torch.save never does")
        whole = start + info.file_size <= self.size and written == info.orig_filename.encode()
        if magic != b"PK\3\4" or flags & 1 or not whole:
            raise DamagedError(f"its record {name} is damaged")
        return Record(name, dtype, start, info.file_size, info.CRC)


ZIP_ERRORS = (
    KeyError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_pickle(archive: Archive, classes: str = "") -> Any:
    """Return what the pickle of an archive holds, with Stored for its tensors. DamagedError.

    `classes` is the beginning of the modules whose classes may have instances; "": none.
    """
    machine = Machine(CALLS, archive.storage, classes)
    try:
        return machine.run(archive.read("data.pkl", MOST_BYTES))
    except PickleError as error:
        raise DamagedError(str(error)) from error


def rebuild(arguments: tuple[Any, ...]) -> Stored:
    """Return the tensor of the arguments (storage, offset, shape, stride ...). DamagedError."""
    record, offset, shape, stride = arguments[:4]
    if not isinstance(record, Record):
        raise DamagedError("it holds a tensor without numbers")
    return stored(record, record.dtype, offset, shape, stride)


def rebuild_typed(arguments: tuple[Any, ...]) -> Stored:
    """Return the tensor of an untyped storage; the seventh argument is its dtype. DamagedError."""
    record, offset, shape, stride = arguments[:4]
    dtype = arguments[6] if len(arguments) > 6 else None
    if not isinstance(record, Record) or not isinstance(dtype, Name):
        raise DamagedError("it holds a tensor without numbers")
    return stored(record, dtype.name, offset, shape, stride)


def other_layout(what: str) -> Any:
    """Return a function for tensors that cannot be weights. It raises DamagedError."""

    def refuse(_: tuple[Any, ...]) -> None:
        raise DamagedError(f"it holds {what}; allowed are dense ones")

    return refuse


CALLS = {
    "collections.OrderedDict": lambda _: {},
    "torch.Size": lambda arguments: tuple(arguments[0]),
    "torch.serialization._get_layout": lambda arguments: arguments[0],  # of a sparse tensor
    "_codecs.encode": lambda arguments: arguments[0],  # of an array of numpy, which is refused
    "torch._utils._rebuild_tensor": rebuild,
    "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_tensor_v3": rebuild_typed,
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch._utils._rebuild_sparse_tensor": other_layout("sparse tensors"),
    "torch._utils._rebuild_nested_tensor": other_layout("nested tensors"),
    "torch._utils._rebuild_meta_tensor_no_storage": other_layout("tensors without numbers"),
    "torch.jit._pickle.build_intlist": lambda arguments: list(arguments[0]),
    "torch.jit._pickle.build_doublelist": lambda arguments: list(arguments[0]),
    "torch.jit._pickle.build_boollist": lambda arguments: list(arguments[0]),
    "torch.jit._pickle.build_tensorlist": lambda arguments: list(arguments[0]),
    "torch.jit._pickle.restore_type_tag": lambda arguments: arguments[0],
}

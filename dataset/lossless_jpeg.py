"""Lossless JPEG frames of DICOM files, decoded by GDCM in a process of its own.

GDCM is the one free decoder of lossless JPEG. A damaged file can make it end its process, and it
prints what it finds wrong: neither reaches the program here. The process starts with the first such
frame and ends with the program. This file is both sides: imported, it asks; run, it answers.

A request is a line of JSON, with the number of bytes of the frame that follow. A reply is a line of
JSON, with the shape and type of the values that follow, or an error.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

OPTIONS = (  # attributes that a decoder needs, by pydicom's names of its options
    ("rows", "Rows"),
    ("columns", "Columns"),
    ("samples_per_pixel", "SamplesPerPixel"),
    ("bits_allocated", "BitsAllocated"),
    ("bits_stored", "BitsStored"),
    ("pixel_representation", "PixelRepresentation"),
    ("planar_configuration", "PlanarConfiguration"),
)
LOCK = threading.Lock()
Decoder = subprocess.Popen[bytes]
RUNNING: dict[int, Decoder] = {}  # by the process that asks: forks have their own


def decode(frame: bytes, dataset: Any) -> npt.NDArray[Any]:
    """Decode an encoded frame of a pydicom dataset: [H, W] as stored, or RGB [H, W, 3].

    Raises ValueError if it cannot be decoded.
    """
    options = {name: dataset.get(keyword) for name, keyword in OPTIONS}
    request: dict[str, Any] = {
        name: int(value) for name, value in options.items() if value is not None
    }
    request["photometric_interpretation"] = str(dataset.PhotometricInterpretation)
    request["syntax"] = str(dataset.file_meta.TransferSyntaxUID)
    with LOCK:
        try:
            return ask(running(), request, frame)
        except (OSError, EOFError) as error:
            stop()
            raise ValueError("GDCM broke down over its lossless JPEG") from error


def ask(process: Decoder, request: dict[str, Any], frame: bytes) -> npt.NDArray[Any]:
    """Send a request and return the values of the reply. OSError, EOFError: it ended."""
    sent = process.stdin
    received = process.stdout
    if sent is None or received is None:
        raise EOFError
    sent.write(json.dumps({**request, "bytes": len(frame)}).encode() + b"\n" + frame)
    sent.flush()
    line = received.readline()
    if not line:
        raise EOFError
    reply = json.loads(line)
    if "error" in reply:
        raise ValueError(reply["error"])
    values = np.empty(reply["shape"], np.dtype(reply["type"]))
    data = read_all(received, values.nbytes)
    return np.frombuffer(data, values.dtype).reshape(values.shape)


def read_all(file: IO[bytes], count: int) -> bytes:
    """Read exactly `count` bytes. Raises EOFError if there are fewer."""
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def running() -> Decoder:
    """Return the process that decodes, started if need be."""
    process = RUNNING.get(os.getpid())
    if process is None:
        process = subprocess.Popen(  # -P: the folder of this file is no place to import from
            [sys.executable, "-P", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        RUNNING[os.getpid()] = process
        atexit.register(stop)
    return process


def stop() -> None:
    """End the process that decodes."""
    process = RUNNING.pop(os.getpid(), None)
    if process is not None:
        process.kill()
        process.wait()


def reply_to(request: dict[str, Any], frame: bytes) -> npt.NDArray[Any]:
    """Decode the frame of a request with pydicom's GDCM."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    decoder = get_decoder(request.pop("syntax"))
    options = {**request, "number_of_frames": 1, "pixel_keyword": "PixelData"}
    source = encapsulate([frame], has_bot=False)
    values, _ = decoder.as_array(source, decoding_plugin="gdcm", **options)
    return np.ascontiguousarray(values)


def serve() -> None:
    """Answer requests on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        frame = read_all(sys.stdin.buffer, request.pop("bytes"))
        try:
            values = reply_to(request, frame)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who asks is told
            reply: dict[str, Any] = {"error": " ".join(str(error).split())}
            data = b""
        else:
            reply = {"shape": values.shape, "type": values.dtype.str}
            data = values.tobytes()
        answers.write(json.dumps(reply).encode() + b"\n" + data)
        answers.flush()


if __name__ == "__main__":
    serve()

"""Flags of app.py, and which detectors it offers. No torch: help and mistakes come at once."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CLIP.hashing import hash_ahead
from CLIP.weight_files import WEIGHTS_SHOWN, weight_path
from errors import UserError
from mvfa.defaults import CHECKPOINTS, OTHER_CHECKPOINTS, PRECISIONS
from mvfa.detector_file import SUFFIX, read_description
from mvfa.flags import Flags, Parser, number
from synthetic.settings import DEMO_ROOT

LOCAL = "127.0.0.1"
LOOPBACK = (LOCAL, "localhost", "::1")  # what only this machine reaches
FOLDERS = (
    *CHECKPOINTS.values(),
    *OTHER_CHECKPOINTS.values(),
    *(DEMO_ROOT / folder for folder in CHECKPOINTS.values()),
)
EXAMPLES = (
    "",
    "ckpt/few-shot/Brain-4shot.detector",
    "ckpt/few-shot/*.detector --port 8000 --device cuda",
)


@dataclass(frozen=True)
class AppOptions:
    """Everything app.py was asked for.

    Args:
        detectors: their files; there is at least one.
        left_out: why a file that was found is not offered, one line each.
        host: address that is listened on.
        port: None: the first free one from 7860 on.
        clip_path: file of the CLIP weights; None: where the model's published file lies.
        device: None: CUDA where there is one.
        precision: of the backbone's products; None: that of the calibration.
        max_mb: most megabytes of an upload.

    """

    detectors: tuple[Path, ...]
    left_out: tuple[str, ...] = ()
    host: str = LOCAL
    port: int | None = None
    clip_path: Path | None = None
    device: str | None = None
    precision: str | None = None
    max_mb: int = 200

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the address."""
        return self.host in LOOPBACK


def build_parser() -> Parser:
    """Build the parser."""
    parser = Parser("app.py", "Show an image or a scan, its map and its score.", EXAMPLES)
    folders = ", ".join(map(str, FOLDERS))
    parser.add_argument(
        "detectors",
        nargs="*",
        type=Path,
        metavar="DETECTOR",
        help=f"files of calibrate.py (default: all in {folders})",
    )
    flags = Flags(parser, "server")
    flags.add("host", "address; 0.0.0.0: everyone who reaches this machine can use it", LOCAL)
    flags.add(
        "port",
        "of the address",
        shown="the first free one from 7860 on",
        type=number(int, 1, top=65535),
        metavar="N",
    )
    flags.add(
        "max_mb",
        "most megabytes of an upload; a zip file may unpack to five times as many",
        200,
        type=number(int, 1, top=100_000),
        metavar="MB",
    )
    flags = Flags(parser, "model")
    flags.add(
        "clip_path",
        "CLIP weights",
        shown=f"the model's file in {WEIGHTS_SHOWN}",
        type=Path,
        metavar="FILE",
    )
    flags.add("device", "cpu, cuda, cuda:1, mps ...", shown="cuda where there is one, else cpu")
    flags.add(
        "precision",
        "number type of the backbone's matrix products",
        shown="that of the calibration",
        choices=PRECISIONS,
    )
    return parser


def weights_of(detector: Path, clip_path: Path | None) -> Path:
    """Return the weight file that a detector needs. Raises UserError if either is missing."""
    return weight_path(read_description(detector)["model_name"], clip_path)


def find_detectors(clip_path: Path | None) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the detectors of FOLDERS that can be used, and why others cannot.

    Raises UserError if there is none.
    """
    usable = []
    reasons = []
    for path in (path for folder in FOLDERS for path in sorted(folder.glob(f"*{SUFFIX}"))):
        try:
            weights_of(path, clip_path)
        except UserError as error:
            reasons.append(f"{path} is left out: {error}")
        else:
            usable.append(path)
    if usable:
        return tuple(usable), tuple(reasons)
    if reasons:
        raise UserError(reasons[0])
    folders = ", ".join(map(str, FOLDERS))
    raise UserError(
        f"no detector in {folders}; make one with calibrate.py, those of the demo with demo.py, "
        "or name a file"
    )


def address_error(host: str, port: int | None) -> UserError:
    """Return the error of an address that cannot be listened on."""
    where = host if port is None else f"{host}:{port}"
    return UserError(
        f"{where} cannot be listened on, or is in use; choose another --port or --host"
    )


def check_address(host: str, port: int | None) -> None:
    """Raise UserError if no server can listen on an address; port None: on any port of it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            listener.bind(address)
    except (OSError, ValueError) as error:  # ValueError: no host has such a name
        raise address_error(host, port) from error


def parse(argv: Sequence[str] | None = None) -> AppOptions:
    """Return what the flags ask for. Raises UserError for what cannot work."""
    values = vars(build_parser().parse_args(argv))
    named = tuple(dict.fromkeys(values.pop("detectors")))
    for path in named:
        weights_of(path, values["clip_path"])
    values["host"] = values["host"].strip("[]")  # as IPv6 addresses are written in a browser
    check_address(values["host"], values["port"])
    detectors, left_out = (named, ()) if named else find_detectors(values["clip_path"])
    return AppOptions(detectors, left_out, **values)


def start(argv: Sequence[str] | None = None) -> AppOptions:
    """Return the options, and start to hash the CLIP weights of the first detector.

    They are hashed in the background while gradio and torch are imported. Raises UserError for
    flags that cannot work, and if a file is missing.
    """
    options = parse(argv)
    hash_ahead(weights_of(options.detectors[0], options.clip_path))
    return options


def titles(detectors: Sequence[Path]) -> list[str]:
    """Return what detectors are called on the page: file names, with folders where those agree."""
    names = [path.stem for path in detectors]
    return [
        name if names.count(name) == 1 else f"{name} ({path.parent})"
        for name, path in zip(names, detectors, strict=True)
    ]

"""Download weights, images, adapters and shot lists, and put each where the scripts look for it.

A file is fetched to FILE.part. Its SHA-256 is compared with the published one and with that of an
earlier download (downloads.lock.json), and only then it is moved or unpacked to its place. What is
there already is left alone.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dataset.catalog import BENCHMARK
from errors import UserError
from preparation.archive import find_folder, unpacked
from preparation.assets import (
    ADAPTERS,
    FILE,
    HUB,
    IMAGES,
    LISTS,
    PAGE,
    Asset,
    Item,
    Places,
    choose_assets,
    destination,
    list_items,
    single_item,
)
from preparation.ledger import Ledger, file_sha256, sole_download
from preparation.transfer import Part, fetch

LIST_LINE = re.compile(r"[na]-\d+:( \S+)+")
SHOWN = 12  # digits of a SHA-256 in a message


@dataclass(frozen=True)
class Request:
    """How to download.

    Args:
        places: where things go.
        mirror: address of a folder that holds the files under their names; "": each file's own.
        source: a file, or a folder of files, that was fetched by hand; None: over the network.
        accept_new: take a file whose content differs from that of an earlier download.
        keep: keep archives after unpacking.

    """

    places: Places
    mirror: str = ""
    source: Path | None = None
    accept_new: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Arrived:
    """A file that arrived and was checked.

    Args:
        path: where it lies: FILE.part, or a file of the user's own.
        url: where it came from.
        size: bytes.
        sha256: in hexadecimal.

    """

    path: Path
    url: str
    size: int
    sha256: str


def address(item: Item, request: Request) -> str:
    """Return the address that a file is fetched from."""
    return f"{request.mirror.rstrip('/')}/{quote(item.file)}" if request.mirror else item.url


def given_file(item: Item, source: Path) -> Path:
    """Return the file that was fetched by hand: `source`, or in that folder by its name.

    Raises UserError if there is none.
    """
    if source.is_file():
        return source
    for path in (source / item.file, source / Path(item.file).name):
        if path.is_file():
            return path
    raise UserError(f"--from {source}: no file {item.file} there; {item.url} is its address")


def obtain(item: Item, request: Request) -> tuple[Path, str]:
    """Return a file, complete but unchecked, and where it came from. Raises UserError."""
    if request.source is not None:
        path = given_file(item, request.source)
        return path, str(path)
    if item.drive_id and not request.mirror:
        from preparation.drive import fetch_drive

        return fetch_drive(item.drive_id, item.target, item.name), item.url
    url = address(item, request)
    return fetch(url, item.target, item.name), url


def checked(item: Item, request: Request, ledger: Ledger) -> Arrived:
    """Obtain a file and check its size and SHA-256.

    Raises UserError; a file that is not the published one is removed, unless it is the user's own.
    """
    path, url = obtain(item, request)
    size = path.stat().st_size
    sha256 = file_sha256(path)
    wrong = ""
    if item.size is not None and size != item.size:
        wrong = f"{size:,} bytes, published are {item.size:,}"
    elif item.sha256 and sha256 != item.sha256:
        wrong = f"SHA-256 {sha256[:SHOWN]}..., published is {item.sha256[:SHOWN]}..."
    if wrong and request.source is None:
        Part(item.target).remove()
        wrong += "; it is removed: try again, or another source (--mirror, --from)"
    if wrong:
        raise UserError(f"{item.name} from {url} is another file: {wrong}")
    ledger.check(item.name, sha256, request.accept_new)
    return Arrived(path, url, size, sha256)


def settle(arrived: Arrived, target: Path, request: Request) -> None:
    """Move a file that was fetched, or copy a user's own, to its place. Raises UserError."""
    partial = Part(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if request.source is not None:
            shutil.copyfile(arrived.path, partial.path)
            partial.path.replace(target)
        else:
            arrived.path.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror})") from error
    partial.remove()


def finish_archive(arrived: Arrived, item: Item, request: Request) -> None:
    """Keep an unpacked archive under its name, or remove it; a user's own stays as it is."""
    if request.source is not None:
        return
    if request.keep:
        settle(arrived, item.target, request)
    else:
        Part(item.target).remove()


def download_file(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Download a weight file. Raises UserError."""
    item = single_item(asset, request.places)
    if item.target.is_file():
        sha256 = file_sha256(item.target)
        if item.sha256 not in ("", sha256):
            raise UserError(
                f"{item.target} is there and is another file (SHA-256 {sha256[:SHOWN]}..., "
                f"published is {item.sha256[:SHOWN]}...); move it away"
            )
        say(asset, f"{item.target} is there already")
        return []
    arrived = checked(item, request, ledger)
    settle(arrived, item.target, request)
    record(ledger, item, arrived)
    say(asset, came(arrived, item.target), asset.terms)
    return [item.target]


def download_images(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Download and unpack the images of an object. Raises UserError."""
    item = single_item(asset, request.places)
    target = destination(asset, request.places)
    assert target is not None
    if target.exists():
        say(asset, f"{target} is there already")
        return []
    arrived = checked(item, request, ledger)
    with unpacked(arrived.path, target.parent) as folder:
        find_folder(folder, asset.holds, arrived.path).replace(target)
    record(ledger, item, arrived)
    finish_archive(arrived, item, request)
    say(asset, came(arrived, target), asset.terms)
    return [target]


def adapter_files(folder: Path, path: Path) -> dict[str, Path]:
    """Return the adapters of an unpacked archive by file name. Raises UserError if there are none.

    They may lie in any folder of it, but not twice.
    """
    names = {f"{info.name}.pth" for info in BENCHMARK}
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.pth")):
        if file.name in names and file.name in found:
            raise UserError(f"{path} holds {file.name} twice; unpack it by hand")
        if file.name in names:
            found[file.name] = file
    if not found:
        raise UserError(f"{path} holds none of {', '.join(sorted(names))}")
    return found


def download_adapters(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Download the authors' adapters of one setting. Raises UserError.

    A file that is there is left alone.
    """
    item = single_item(asset, request.places)
    target = destination(asset, request.places)
    assert target is not None
    if all((target / f"{info.name}.pth").exists() for info in BENCHMARK):
        say(asset, f"all adapters are there already, in {target}")
        return []
    arrived = checked(item, request, ledger)
    written = []
    hashes = {}
    with unpacked(arrived.path, target.parent) as folder:
        target.mkdir(exist_ok=True)
        for name, file in adapter_files(folder, arrived.path).items():
            hashes[name] = file_sha256(file)
            if (target / name).exists():
                say(asset, f"{target / name} is there already")
            else:
                written.append(file.replace(target / name))
    record(ledger, item, arrived, hashes)
    finish_archive(arrived, item, request)
    say(asset, came(arrived, target), asset.terms)
    return written


def check_list(path: Path, item: Item) -> None:
    """Raise UserError unless a file is a shot list."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        lines = []
    filled = [line.strip() for line in lines if line.strip()]
    if not filled or not all(LIST_LINE.fullmatch(" ".join(line.split())) for line in filled):
        raise UserError(f"{item.name} from {item.url} is no shot list")


def download_lists(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Download the authors' shot lists. Raises UserError. A list that is there is left alone."""
    written = []
    for item in list_items(asset, request.places):
        if item.target.exists():
            continue
        arrived = checked(item, request, ledger)
        check_list(arrived.path, item)
        settle(arrived, item.target, request)
        record(ledger, item, arrived)
        written.append(item.target)
    if written:
        say(asset, f"{len(written)} lists -> {request.places.lists}", asset.terms)
    else:
        say(asset, f"all lists are there already, in {request.places.lists}")
    return written


def download_hub(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Download a repository of the Hugging Face hub, to be converted. Raises UserError."""
    from preparation.hub import hub_items

    folder = destination(asset, request.places)
    assert folder is not None
    if request.source is not None or request.mirror:
        raise UserError(f"{asset.name} comes from {asset.url} alone; leave out --from and --mirror")
    items = hub_items(asset, folder)
    for item in items:
        if item.target.is_file() and item.target.stat().st_size == item.size:
            continue
        arrived = checked(item, request, ledger)
        settle(arrived, item.target, request)
        record(ledger, item, arrived)
    say(asset, f"{len(items)} files -> {folder}", asset.terms)
    return [folder]


def refuse_page(asset: Asset, request: Request, ledger: Ledger) -> list[Path]:
    """Raise UserError: it has to be fetched with a browser."""
    del request, ledger
    raise UserError(
        f"{asset.name} ({asset.what}) cannot be downloaded by a program: open {asset.url} "
        f"({asset.terms}), then run python prepare_data.py convert FOLDER --obj NAME"
    )


KINDS = {
    FILE: download_file,
    IMAGES: download_images,
    ADAPTERS: download_adapters,
    LISTS: download_lists,
    HUB: download_hub,
    PAGE: refuse_page,
}


def came(arrived: Arrived, target: Path) -> str:
    """Return what arrived, and where it is, in words."""
    size = f"{arrived.size:,} bytes, SHA-256 {arrived.sha256[:SHOWN]}..."
    return f"{arrived.url} ({size}) -> {target}"


def record(
    ledger: Ledger, item: Item, arrived: Arrived, files: dict[str, str] | None = None
) -> None:
    """Enter a file into the record of downloads."""
    ledger.add(item.name, arrived.url, arrived.size, arrived.sha256, files)


def say(asset: Asset, text: str, terms: str = "") -> None:
    """Print a line about an asset, with its terms where they matter."""
    print(f"{asset.name}: {text}{f'; {terms}' if terms else ''}", flush=True)


def download(names: Sequence[str], request: Request) -> list[Path]:
    """Download assets by name and return what was written.

    A failure of one does not stop the others.

    Raises:
        UserError: an unknown name; the failure of the only asset; or, after all others, which
            failed, each with its own line on standard error.

    """
    chosen = choose_assets(names)
    if request.source is not None and request.source.is_file() and len(chosen) > 1:
        raise UserError(f"--from {request.source} is one file; name one asset, or pass a folder")
    written: list[Path] = []
    failed = []
    with sole_download(request.places.data):
        ledger = Ledger(request.places.data)
        for asset in chosen:
            try:
                written += KINDS[asset.kind](asset, request, ledger)
            except UserError as error:
                if len(chosen) == 1:
                    raise
                failed.append(asset.name)
                print(f"failed: {asset.name}: {error}", file=sys.stderr, flush=True)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(chosen)} downloads failed ({', '.join(failed)}); the same "
            "command continues with them"
        )
    return written

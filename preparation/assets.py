"""What can be downloaded (preparation/assets.csv), and where each thing goes. Needs no torch.

kind        goes to
file        the weight file's place
images      <data>/<name>_AD, from an archive
adapters    <checkpoints>/<name>/<object>.pth, from an archive
lists       <lists>/<object>/<K>-shot.txt
hub         <data>/<name>, a copy of a repository of the Hugging Face hub, to be converted
page        nowhere: a page for the browser
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dataset.catalog import BENCHMARK
from dataset.layout import object_folder
from errors import UserError

TABLE = Path(__file__).with_name("assets.csv")
EVERYTHING = "all"  # stands for every asset that goes to its place without conversion
FILE = "file"
IMAGES = "images"
ADAPTERS = "adapters"
LISTS = "lists"
HUB = "hub"
PAGE = "page"
APART = (HUB, PAGE)  # kinds that `all` leaves out
SHOTS = (2, 4, 8, 16)  # K of the published lists
DRIVE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)/")


@dataclass(frozen=True)
class Asset:
    """One row of the table: something that can be downloaded.

    Args:
        name: as it is asked for.
        kind: see above.
        what: a line of text.
        url: its address; of lists with <name> and <K>.
        file: name of the file, on a mirror or in a folder of files that were fetched by hand.
        holds: folder or files that the archive holds.
        sha256: published SHA-256 in hexadecimal, or "".
        terms: remark on licence and access.

    """

    name: str
    kind: str
    what: str
    url: str
    file: str
    holds: str
    sha256: str
    terms: str


@dataclass(frozen=True)
class Places:
    """Where downloads go: a weight file, and the folders of images, checkpoints and shot lists."""

    weights: Path
    data: Path
    checkpoints: Path
    lists: Path


@dataclass(frozen=True)
class Item:
    """One file to fetch.

    Args:
        name: of its entry in the record of downloads.
        url: its address.
        file: its name on a mirror, perhaps with folders.
        target: where it goes under that name; an archive is unpacked from there and removed.
        sha256: published SHA-256, or "".
        size: published size in bytes; None: not known.

    """

    name: str
    url: str
    file: str
    target: Path
    sha256: str = ""
    size: int | None = None

    @property
    def drive_id(self) -> str:
        """The file's id on Google Drive, or "" if its address is elsewhere."""
        match = DRIVE.match(self.url)
        return match[1] if match else ""


@cache
def assets() -> dict[str, Asset]:
    """Return everything that can be downloaded, by name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: Asset(**row) for row in csv.DictReader(file)}


def choose_assets(names: Sequence[str]) -> list[Asset]:
    """Return the assets of some names, each once; "all" stands for those that need no conversion.

    Raises UserError for an unknown name.
    """
    chosen = []
    for name in names:
        if name == EVERYTHING:
            chosen += [asset for asset in assets().values() if asset.kind not in APART]
        elif name in assets():
            chosen.append(assets()[name])
        else:
            known = ", ".join(assets())
            raise UserError(f"{name!r} cannot be downloaded; choose from {EVERYTHING}, {known}")
    return list(dict.fromkeys(chosen))


def destination(asset: Asset, places: Places) -> Path | None:
    """Return the file or folder that an asset goes to; None for a page."""
    targets = {
        FILE: places.weights,
        IMAGES: object_folder(places.data, asset.name),
        ADAPTERS: places.checkpoints / asset.name,
        LISTS: places.lists,
        HUB: places.data / asset.name,
    }
    return targets.get(asset.kind)


def single_item(asset: Asset, places: Places) -> Item:
    """Return the one file of an asset: the weight file or an archive."""
    folders = {IMAGES: places.data, ADAPTERS: places.checkpoints}
    target = folders[asset.kind] / asset.file if asset.kind in folders else places.weights
    return Item(asset.name, asset.url, asset.file, target, asset.sha256)


def list_items(asset: Asset, places: Places) -> list[Item]:
    """Return the shot lists of the benchmark's objects, one file for each object and K."""
    items = []
    for info in BENCHMARK:
        for k in SHOTS:
            url, file = (
                text.replace("<name>", info.name).replace("<K>", str(k))
                for text in (asset.url, asset.file)
            )
            target = places.lists / info.name / f"{k}-shot.txt"
            items.append(Item(f"{asset.name}/{info.name}/{k}", url, file, target))
    return items

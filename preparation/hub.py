"""Files of a dataset repository of the Hugging Face hub, listed by its HTTP interface."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from errors import UserError
from preparation.assets import Asset, Item
from preparation.transfer import CONNECT_TIMEOUT, READ_TIMEOUT

HUB = "https://huggingface.co"
ENDPOINT = "HF_ENDPOINT"  # environment variable, as huggingface_hub reads it
REVISION = "main"


def endpoint() -> str:
    """Return the address of the hub: that of HF_ENDPOINT, if it is set."""
    return os.environ.get(ENDPOINT, HUB).rstrip("/")


def pages(address: str) -> Iterator[Any]:
    """Yield the JSON content of an address and of the pages that follow it. Raises UserError."""
    import requests

    link: str | None = address
    while link:
        try:
            response = requests.get(link, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
            response.raise_for_status()
            yield response.json()
        except requests.RequestException as error:
            raise UserError(f"{link}: no list of files ({str(error)[:150]})") from error
        link = response.links.get("next", {}).get("url")


def safe_target(folder: Path, name: str, repository: str) -> Path:
    """Return the place of a repository's file below a folder. Raises UserError if it is not."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or set(name) & set("\\:"):
        raise UserError(f"{repository} lists {name[:100]!r}, which would be written elsewhere")
    return folder.joinpath(*path.parts)


def hub_items(asset: Asset, folder: Path) -> list[Item]:
    """Return the files of a repository, each with its size, large ones with their SHA-256.

    Raises UserError if the list cannot be had or is of another form.
    """
    repository = asset.url.removeprefix(f"{HUB}/datasets/")
    address = f"{endpoint()}/api/datasets/{repository}/tree/{REVISION}?recursive=true"
    items = []
    for page in pages(address):
        if not isinstance(page, list):
            raise UserError(f"{address} gives no list of files")
        for entry in page:
            if entry.get("type") != "file":
                continue
            name = str(entry["path"])
            url = f"{endpoint()}/datasets/{repository}/resolve/{REVISION}/{quote(name)}"
            target = safe_target(folder, name, repository)
            if name.startswith("."):
                continue
            large = entry.get("lfs") or {}
            items.append(
                Item(f"{asset.name}/{name}", url, name, target, large.get("oid", ""), entry["size"])
            )
    if not items:
        raise UserError(f"{address} lists no files")
    return items

"""Findings of `check`, and the contents of an object's folder that they are made from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.catalog import ObjectInfo
from preparation.audit_files import ImageFacts, MaskFacts
from preparation.audit_folders import Group

ERROR = "error"
WARNING = "warning"
NOTE = "note"
LEVELS = (ERROR, WARNING, NOTE)
SHOWN = 4  # names that a line of the report lists


@dataclass(frozen=True)
class Finding:
    """Something about an object's folder that a user should know.

    Args:
        level: "error": a run would be refused or its numbers wrong; "warning": probably not what
            was meant; "note": good to know.
        kind: a short key, the same for the same kind of finding.
        text: what was found, and for errors what to do; without file names.
        files: paths below the object's folder, or other names, that it is about.

    """

    level: str
    kind: str
    text: str
    files: tuple[str, ...] = ()

    def line(self) -> str:
        """Return one line of text with the first few names."""
        if not self.files:
            return self.text
        more = f" and {len(self.files) - SHOWN} more" if len(self.files) > SHOWN else ""
        return f"{self.text} ({', '.join(self.files[:SHOWN])}{more})"

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for a JSON file, with all names."""
        return {"level": self.level, "kind": self.kind, "text": self.text, "files": self.files}


@dataclass(frozen=True)
class Contents:
    """An object's folder `top` and what its files hold, by path below it."""

    info: ObjectInfo
    top: Path
    groups: list[Group]
    images: dict[str, ImageFacts]
    masks: dict[str, MaskFacts]

    def group(self, split: str, state: str) -> Group:
        """Return the images of a split and state."""
        return next(g for g in self.groups if (g.split, g.state) == (split, state))

    def abnormal(self) -> Iterator[Group]:
        """Yield the groups of abnormal images."""
        return (group for group in self.groups if group.label)

    def readable(self) -> dict[str, ImageFacts]:
        """Return the facts of images that can be read."""
        return {path: facts for path, facts in self.images.items() if not facts.problem}


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 image, 2 images."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def found(level: str, kind: str, noun: str, text: str, files: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding about some files, if there are any: their count, the noun, then the text."""
    names = tuple(files)
    if names:
        yield Finding(level, kind, f"{plural(len(names), noun)} {text}", names)

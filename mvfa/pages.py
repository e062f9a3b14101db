"""What pages of results share: templates, styles, scripts and texts. A page is one file.

It needs no other file and no network, and equal results give equal bytes.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mvfa.embedding import colour_bar_uri

TEMPLATES = Path(__file__).parent / "templates"
NONE = "\N{EN DASH}"  # where a table has no value
DISCLAIMER = "Research software, not a medical device: not for diagnosis or any other clinical use."
DEMO_NOTE = (
    "Demo results, of synthetic images and a backbone that was never trained: they say nothing "
    "about the accuracy of the method."
)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which takes an s unless the number is 1."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def flat(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value) pairs, in their own order."""
    if isinstance(values, Mapping) and values:
        return [
            pair
            for key, value in values.items()
            for pair in flat(value, f"{name}.{key}" if name else str(key))
        ]
    return [(name, values if isinstance(values, str) else json.dumps(values, default=str))]


def script_json(value: Any) -> Markup:
    """Return JSON that can stand within a script element: it has no "<" that could end it."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def plotly_script() -> Markup:
    """Return Plotly's script, gzip in base64: 2.0 MB instead of 4.9. The page unpacks it."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
    return Markup(base64.b64encode(packed).decode("ascii"))


def template_text(name: str, folder: Path = TEMPLATES) -> Markup:
    """Read a file of this program that goes into the page as it is."""
    return Markup((folder / name).read_text(encoding="utf-8"))


def make_environment(folders: Iterable[Path] = ()) -> Environment:
    """Return an environment of this package's templates and those of other folders."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.globals |= {
        "dash": NONE,
        "disclaimer": DISCLAIMER,
        "demo_note": DEMO_NOTE,
        "css": template_text("page.css"),
        "js": template_text("page.js"),
        "colour_bar": colour_bar_uri(),
    }
    return environment

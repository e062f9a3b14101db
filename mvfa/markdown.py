"""Markdown tables."""

from collections.abc import Iterable, Sequence


def escape(text: str) -> str:
    """Return text on one line that stays text in a Markdown table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.replace("|", "\\|").split())


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return headers and rows of text as a Markdown table that ends with a newline."""
    from tabulate import tabulate  # not installed everywhere, and few runs write tables

    cells = [[escape(cell) for cell in row] for row in rows]
    texts = [escape(header) for header in headers]
    return tabulate(cells, texts, tablefmt="pipe", disable_numparse=True) + "\n"

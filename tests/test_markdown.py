"""Text stays text in a Markdown table."""

import pytest

from mvfa.markdown import escape, markdown_table


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain 1.50", "plain 1.50"),
        ("a|b", r"a\|b"),
        ("<b>", "&lt;b&gt;"),
        ("a & b", "a &amp; b"),
        ("&lt;", "&amp;lt;"),
        ("two\nlines", "two lines"),
        ("  far\t apart ", "far apart"),
        ("<a href='x|y'>\n&", r"&lt;a href='x\|y'&gt; &amp;"),
        ("", ""),
    ],
)
def test_escapes(text, escaped):
    assert escape(text) == escaped


def test_a_table_keeps_its_columns_and_its_digits():
    table = markdown_table(["name", "a|b"], [["x\ny", "1.50"], ["<z>", ""]])
    assert table.endswith("|\n")
    cells = [
        [cell.strip() for cell in line.replace(r"\|", "PIPE").strip("|").split("|")]
        for line in table.splitlines()
    ]
    assert cells[0] == ["name", "aPIPEb"]
    assert all(set(cell) <= set(":-") for cell in cells[1])
    assert cells[2:] == [["x y", "1.50"], ["&lt;z&gt;", ""]]

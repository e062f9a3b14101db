"""LaTeX tables with the rules of booktabs."""

from collections.abc import Iterable, Sequence

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "[": "{[}",  # at the start of a line it would be an argument of \\
        "]": "{]}",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{MINUS SIGN}": "$-$",
        "\N{EN DASH}": "--",
    }
)
PREAMBLE = "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs} in the preamble"


def escape(text: str) -> str:
    """Return text on one line that LaTeX prints as it is."""
    return " ".join(text.translate(ESCAPES).split())


def bold(latex: str) -> str:
    """Return LaTeX in bold type."""
    return rf"\textbf{{{latex}}}"


def latex_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str, alignment: str
) -> str:
    """Return a table environment.

    `headers` and `caption` are plain text, `rows` are LaTeX; `alignment` has a letter a column,
    "l", "r" or "c".
    """
    lines = [
        PREAMBLE,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(map(escape, headers)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"

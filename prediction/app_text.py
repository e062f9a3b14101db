"""The page's own HTML: the verdict, the scores beside the calibration's, and slices as bars.

Text from files and messages is escaped. Colours are named in templates/app.css.
"""

from collections.abc import Iterable, Sequence
from html import escape

from mvfa.calibration import default_rule, describe, rank_words
from mvfa.commands import as_installed
from mvfa.overlays import Box
from prediction.app_case import Case, refused_rules
from prediction.finish import LIKENESS, OF_SLICES
from prediction.page import DISCLAIMER

HEAD = "<h1>Anomaly detection in medical images</h1>"
NOTE = f'<p class="disclaimer" role="note">{DISCLAIMER}</p>'
HINT = (
    '<p class="hint">Drop an image or a scan into the field: PNG, JPEG, BMP, TIFF, NIfTI or DICOM: '
    "one file, all files of a series, or a zip of them. It stays on the machine that runs this "
    "program.</p>"
)
BOXES_SHOWN = 5


def problem(message: str) -> str:
    """Return an error as one line of the page; "" for none."""
    if not message:
        return ""
    return f'<p class="problem" role="alert">{escape(as_installed(message))}</p>'


def label_words(flagged: bool) -> str:
    """Return the label as a mark that does not rest on colour alone."""
    name = "abnormal" if flagged else "normal"
    return f'<strong class="label {name}">{name}</strong>'


def fact(name: str, value: str) -> str:
    """Return a name and a value."""
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def verdict(case: Case) -> str:
    """Return label, score, p-value and rank of an image; of a volume those of the highest slice."""
    row = case.row() if case.numbers is None else case.volume()
    flagged = row["score"] > case.rule.value
    facts = [fact("score", f"{row['score']:.4f}"), fact("threshold", f"{case.rule.value:.4f}")]
    if row["p_value"] != "":
        facts.append(fact("p-value", f"{row['p_value']:.3g}"))
        facts.append(fact("rank", rank_words(row["normals_below"], row["normals"])))
    elif case.numbers is not None:
        facts.append(fact("p-value", "none: the calibration's scores are of single images"))
    what = f"{escape(case.name)}, scored by {escape(case.detector)}"
    if case.numbers is not None:
        slices = f"highest of {len(case.numbers)} slices" if len(case.numbers) > 1 else "one slice"
        what += f"; {slices}: slice {case.numbers[case.best]}"
    return (
        f'<section class="verdict" aria-live="polite"><p class="what">{what}</p>'
        f"{label_words(flagged)}<dl>{''.join(facts)}</dl></section>"
    )


def caption(case: Case) -> str:
    """Return what is said below the pictures: the slice's own score, boxes, colours."""
    result = case.shown
    parts = []
    if case.numbers is not None:
        row = case.row()
        own = (
            f"slice {case.numbers[case.at]}: {label_words(result.flagged)} score {row['score']:.4f}"
        )
        if case.calibration.by == "image":
            own += f", p-value {row['p_value']:.3g}"
        parts.append(f"<p>{own}</p>")
    low, high = result.span
    middle = case.rule.value if result.masks else (low + high) / 2
    half = (high - low) / 2
    ends = [f"{value:.3g}" for value in (middle - half, middle, middle + half)]
    parts.append(
        f'<div class="scale" aria-hidden="true"><span>{ends[0]}</span><span>{ends[1]}</span>'
        f"<span>{ends[2]}</span></div>"
    )
    if result.masks:
        parts.append(f"<p>{box_words(result.boxes)}</p>")
    else:
        parts.append(
            "<p>The threshold is one of the image's score, not of pixels: no contour is drawn.</p>"
        )
    return f'<div class="caption">{"".join(parts)}</div>'


def box_words(boxes: Sequence[Box]) -> str:
    """Say where boxes are, in pixels of the image."""
    if not boxes:
        return "Nothing is above the threshold: no contour, no box."
    shown = "; ".join(f"{b.left}:{b.right}, {b.top}:{b.bottom}" for b in boxes[:BOXES_SHOWN])
    more = f" and {len(boxes) - BOXES_SHOWN} more" if len(boxes) > BOXES_SHOWN else ""
    return (
        f'<span class="key line"></span> above the threshold, in {len(boxes)} '
        f'<span class="key box"></span> {"box" if len(boxes) == 1 else "boxes"} '
        f"(columns, rows of the image: {shown}{more})"
    )


# -------------------------------------------------------------------- scores


def percent(value: float, ends: tuple[float, float]) -> float:
    """Return where a value lies between two ends, in percent."""
    return min(max(100 * (value - ends[0]) / (ends[1] - ends[0]), 0.0), 100.0)


def strip(case: Case) -> str:
    """Return the scores of the calibration as marks on a line, with the threshold and the score.

    The line begins and ends where the threshold's slider does (templates/app.css).
    """
    ends = case.range()
    rows = []
    for name in ("normal", "abnormal"):
        scores = getattr(case.calibration, f"{name}_scores")
        marks = [f'<i style="left:{percent(float(s), ends):.2f}%"></i>' for s in scores]
        rows.append(
            f'<span class="name">{name}</span><div class="row {name}" role="img" '
            f'aria-label="{len(scores)} {name} scores of the calibration">{"".join(marks)}</div>'
        )
    score = case.shown.score
    what = "image" if case.numbers is None else "slice"
    return (
        f'<div class="strip">{"".join(rows)}<span class="name">this {what}</span>'
        f'<div class="row own"><i style="left:{percent(score, ends):.2f}%"></i></div>'
        f'<span class="name">score</span><div class="ends"><span>{ends[0]:.3g}</span>'
        f"<span>{ends[1]:.3g}</span></div>"
        f'<div class="over"><b style="left:{percent(case.rule.value, ends):.2f}%"></b></div></div>'
    )


def bars(case: Case) -> str:
    """Return the slices of a volume as bars as high as their scores, which can be clicked."""
    if case.numbers is None:
        return ""
    scores = case.scores
    ends = case.range()
    drawn = []
    for k, (number, score) in enumerate(zip(case.numbers, scores, strict=True)):
        kind = "high" if score > case.rule.value else "low"
        chosen = " chosen" if k == case.at else ""
        drawn.append(
            f'<i class="{kind}{chosen}" data-slice="{number}" title="slice {number}: {score:.4f}">'
            f'<u style="height:{percent(score, ends):.1f}%"></u></i>'
        )
    high_count = sum(score > case.rule.value for score in scores)
    words = (
        f"score of each slice, {case.numbers[0]} to {case.numbers[-1]}: "
        f"{high_count} of {len(scores)} above the threshold, highest {max(scores):.4f} "
        f"at slice {case.numbers[case.best]}"
    )
    return (
        f'<figure class="bars"><div class="plot" role="img" aria-label="{words}">'
        f'<hr style="bottom:{percent(case.rule.value, ends):.1f}%">{"".join(drawn)}</div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


# -------------------------------------------------------------------- what to know


def rule_words(case: Case) -> str:
    """Return what is known of calibration and threshold, and which rules are refused."""
    rule, reason = default_rule(case.calibration)
    known = describe(case.calibration, case.rule, reason if rule == case.rule.rule else "")
    refused = items(refused_rules(case.calibration).values())
    few = "Rules that the calibration has too few images for:"
    rules = f"<p>{few}</p>{refused}" if refused else ""
    return f'<div class="rule"><p>{escape(known)}</p>{rules}</div>'


def remarks(case: Case) -> str:
    """Return the notes on the file, and what to know before trusting the scores."""
    said = [*case.notes, LIKENESS]
    if case.numbers is not None and case.calibration.by == "image":
        said.append(OF_SLICES)
    return items(said)


def items(lines: Iterable[str]) -> str:
    """Return lines as a list; "" for none."""
    shown = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{shown}</ul>' if shown else ""

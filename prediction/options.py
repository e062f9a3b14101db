"""Flags of predict.py. No torch: help and mistakes come at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CLIP.weight_files import WEIGHTS_SHOWN
from dataset.catalog import known_name
from dataset.intensity import Intensity, intensity
from errors import UserError
from mvfa.defaults import CHECKPOINTS, FEW, PRECISIONS, ZERO
from mvfa.detector_file import SUFFIX
from mvfa.flags import Flags, Parser, number
from scans.preparation import PREPARATIONS
from scans.volume import AXES

DICOM_KINDS = ("seg", "pm", "sc")
EXAMPLES = (
    "-i scan.png -o out --obj Brain --shot 4",
    "-i ct_series flair.nii.gz -o out --detector ckpt/few-shot/Brain-4shot.detector",
    "-i images -o out --obj Chest --shot 4 --threshold sens=0.95 --maps no",
)


@dataclass(frozen=True)
class PredictOptions:
    """Everything predict.py was asked for: one field a flag, and the detector's file."""

    input: tuple[Path, ...]
    out: Path
    detector: Path
    clip_path: Path | None
    device: str | None
    precision: str | None
    batch_size: int | None
    threshold: str | None
    fdr: float | None
    prevalence: float | None
    overlays: bool
    maps: bool
    intensity: Intensity | None
    window: tuple[float, float] | None  # centre and width
    prepare: str | None
    liver_mask: Path | None
    axis: str | None
    volume: int | None
    slices: tuple[int, int] | None
    series: bool
    dicom_out: tuple[str, ...]
    cluster: str | None
    jobs: int
    cluster_options: tuple[str, ...]
    overwrite: bool

    def scoring(self) -> dict[str, Any]:
        """Return what decides a file's rows and outputs, as plain values, for a stopped run.

        A command that goes on must agree in all of it.
        """
        names: tuple[str, ...] = (
            "detector",
            "threshold",
            "precision",
            "overlays",
            "maps",
            "intensity",
            "window",
        )
        names += ("prepare", "liver_mask", "axis", "volume", "slices", "series", "dicom_out")
        plain: dict[str, Any] = {}
        for name in names:
            value = getattr(self, name)
            plain[name] = str(value) if isinstance(value, Path | Intensity) else value
            if isinstance(value, tuple):
                plain[name] = list(value)
        return plain


def span(text: str) -> tuple[int, int]:
    """Convert FIRST:LAST, a flag's value."""
    first, _, last = text.partition(":")
    values = (int(first), int(last))
    if values[0] < 0 or values[1] < values[0]:
        raise ValueError(text)
    return values


span.__name__ = "FIRST:LAST"


def add_detector(parser: Parser) -> None:
    """Add which detector, and how it runs."""
    flags = Flags(parser, "detector: --detector FILE, or --obj and --shot of calibrate.py")
    file = {"type": Path, "metavar": "FILE"}
    flags.add("detector", "a file of calibrate.py", shown="that of --obj and --shot", **file)
    flags.add("obj", "the object", shown="none", type=known_name)
    flags.add("shot", "its number of shots; 0: zero-shot", 4, type=number(int, 0), metavar="K")
    flags.add(
        "abnormal_shot",
        "0: made of normal shots only",
        shown="as many as --shot",
        type=int,
        choices=[0],
    )
    flags.add(
        "save_path",
        "folder of the detector",
        shown="ckpt/few-shot or ckpt/zero-shot",
        type=Path,
        metavar="DIR",
    )
    flags.add("clip_path", "CLIP weights", shown=f"the model's file in {WEIGHTS_SHOWN}", **file)
    flags.add("device", "cpu, cuda, cuda:1, mps ...", shown="cuda where there is one, else cpu")
    flags.add(
        "precision",
        "number type of the backbone's matrix products",
        shown="that of the calibration",
        choices=PRECISIONS,
    )
    flags.add(
        "batch_size",
        "images read and written together; it changes no score on a CPU",
        shown="16",
        type=number(int, 1),
        metavar="B",
    )


def add_decision(parser: Parser) -> None:
    """Add what is decided by the scores."""
    flags = Flags(parser, "decision (docs/calibration.md)")
    flags.add(
        "threshold",
        "scores above it are flagged: fpr=0.05 (false positive rate), sens=0.95 (sensitivity), f1, "
        "max (above all normal images of the calibration) or a number",
        shown="fpr=0.05 with 19 normal images in the calibration or more, else max",
        metavar="RULE",
    )
    flags.add(
        "fdr",
        "also mark discoveries at this false discovery rate over all files (Benjamini-Hochberg)",
        shown="none",
        type=number(float, 0, inclusive=False, top=1),
        metavar="Q",
    )
    flags.add(
        "prevalence",
        "share of abnormal images expected, for the column probability",
        shown="the calibration's",
        type=number(float, 0, inclusive=False, top=1),
        metavar="P",
    )


def add_reading(parser: Parser) -> None:
    """Add how files become images."""
    flags = Flags(parser, "reading")
    flags.add(
        "intensity",
        "how files of more than 8 bit become 8 bit: auto, minmax, full or LOW:HIGH",
        shown="as the training images were read",
        type=intensity,
        metavar="HOW",
    )
    flags.add(
        "window",
        "DICOM and NIfTI: display window, in the file's units such as HU",
        shown="the file's first one, else --intensity",
        type=float,
        nargs=2,
        metavar=("CENTRE", "WIDTH"),
    )
    flags.add(
        "prepare",
        "make slices of volumes as BMAD's were made (docs/slices.md)",
        shown="the detector's",
        choices=list(PREPARATIONS),
    )
    flags.add(
        "liver_mask",
        "for --prepare Liver: a volume, above 0 in the liver",
        shown="none",
        type=Path,
        metavar="FILE",
    )
    flags.add(
        "axis",
        "volumes: direction of the slices",
        shown="axial for NIfTI, as acquired for DICOM",
        choices=list(AXES),
    )
    flags.add(
        "volume",
        "of a 4-D NIfTI file: which volume, from 0",
        shown="none",
        type=number(int, 0),
        metavar="N",
    )
    flags.add(
        "slices",
        "volumes: first and last slice, from 0",
        shown="all",
        type=span,
        metavar="FIRST:LAST",
    )
    flags.yes_no("series", "no: read each DICOM file as an image, not a series as a volume", True)


def add_output(parser: Parser) -> None:
    """Add what is written, and where the work is done."""
    flags = Flags(parser, "output")
    flags.yes_no("overlays", "write the image with its map over it", True)
    flags.yes_no("maps", "write maps: TIFF for images, map.nii.gz for volumes, float32", True)
    flags.add(
        "dicom_out",
        "for DICOM: segmentation, parametric map, secondary capture",
        shown="none",
        metavar="seg,pm,sc",
    )
    flags.group.add_argument(
        "--overwrite", action="store_true", help="remove what an earlier run wrote to -o first"
    )
    flags = Flags(parser, "several machines")
    flags.add(
        "cluster",
        "run jobs there, with the package submitit",
        shown="this process",
        choices=["slurm", "local"],
    )
    flags.add("jobs", "jobs that share the files", 1, type=number(int, 1), metavar="N")
    flags.add(
        "cluster_options",
        "for submitit, such as timeout_min=600",
        (),
        shown="none",
        nargs="+",
        metavar="KEY=VALUE",
    )


def build_parser() -> Parser:
    """Build the parser."""
    parser = Parser("predict.py", "Score images and scans with a detector.", EXAMPLES)
    parser.add_argument(
        "-i",
        "--input",
        nargs="+",
        required=True,
        type=Path,
        metavar="PATH",
        help="images, DICOM files or series, NIfTI volumes, folders of them",
    )
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of scores.csv, index.html, overlays and maps",
    )
    add_detector(parser)
    add_decision(parser)
    add_reading(parser)
    add_output(parser)
    return parser


def detector_file(values: dict[str, Any]) -> Path:
    """Take the flags that name a detector out of `values`; return its file. Raises UserError."""
    file = values.pop("detector")
    obj = values.pop("obj")
    shot = values.pop("shot")
    normal = values.pop("abnormal_shot") == 0
    folder = values.pop("save_path")
    if file is not None:
        return file
    if obj is None:
        raise UserError("which detector? give --obj OBJ (and --shot K), or --detector FILE")
    kind = "normal" if normal else "shot"
    name = f"{obj}-{shot}{kind}{SUFFIX}" if shot else f"{obj}{SUFFIX}"
    return (folder or CHECKPOINTS[FEW if shot and not normal else ZERO]) / name


def dicom_kinds(text: str | None) -> tuple[str, ...]:
    """Return the kinds of DICOM output that a flag names. Raises UserError."""
    kinds = tuple(dict.fromkeys((text or "").split(","))) if text else ()
    wrong = [kind for kind in kinds if kind not in DICOM_KINDS]
    if wrong:
        raise UserError(f"--dicom_out {text}: allowed are {','.join(DICOM_KINDS)}, or some of them")
    return kinds


def parse(argv: Sequence[str] | None = None) -> PredictOptions:
    """Return what the flags ask for. Raises UserError for what cannot work."""
    values = vars(build_parser().parse_args(argv))
    values["detector"] = detector_file(values)
    values["dicom_out"] = dicom_kinds(values["dicom_out"])
    values["input"] = tuple(values["input"])
    values["window"] = values["window"] and tuple(values["window"])
    values["cluster_options"] = tuple(values["cluster_options"])
    if values["window"] and values["window"][1] <= 0:
        raise UserError(f"--window: the width is {values['window'][1]:g}; it must be above 0")
    missing = [path for path in values["input"] if not path.exists()]
    if missing:
        raise UserError(f"-i {missing[0]} does not exist; name files or folders that do")
    if values["prevalence"] == 1 or values["fdr"] == 1:
        raise UserError("--prevalence and --fdr are shares below 1")
    return PredictOptions(**values)

"""Small valid files of every kind that a reader takes."""

import io
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from CLIP.adapter import MVFA
from CLIP.model import ClipConfig, Tower
from CLIP.weights import create_model
from mvfa import own_files
from mvfa.methods.mvfa import Mvfa
from mvfa.run_files import SCORES
from mvfa.state_file import State, write_state
from mvfa.text_cache import GROUP, NAME
from prediction.records import line_of
from tests.conftest import random_state, released_form
from tests.detectors import random_detector
from tests.fuzz.mutate import zipped
from tests.invented import done
from tests.methods import mvfa_method
from tests.odd_weights import saved
from tests.scan_files import write_dicom_file, write_enhanced
from tests.wide_images import COLOUR, GREY, write_png, write_tiff

WIDTH = 64  # of the text features
LEVELS = (1, 2)
KEY = "0" * 64  # of an entry of the text cache
NAMES = ("a_1.png", "a_2.png", "b_1.png", "b_2.png", "c-1.png")
RUN = {"version": 1, "detector": "0" * 64, "threshold": "fpr=0.05"}
CLIP = ClipConfig(  # of a detector: four blocks
    embed_dim=64,
    vision=Tower(64, 4, 1),
    patch_size=8,
    grid=4,
    text=Tower(64, 1, 1),
    context_length=8,
    vocab_size=16,
)
SMALLEST = ClipConfig(
    embed_dim=8,
    vision=Tower(64, 1, 1),
    patch_size=8,
    grid=4,
    text=Tower(64, 1, 1),
    context_length=4,
    vocab_size=4,
)


class File(NamedTuple):
    """A file that a reader gets: its name and its content."""

    name: str
    data: bytes


def grey(shape: tuple[int, ...], dtype: str = "u1") -> np.ndarray:
    """Return values that rise from corner to corner, over a good part of the type's range."""
    rise = np.linspace(0, 250 if dtype == "u1" else 4000, int(np.prod(shape)))
    return rise.reshape(shape).astype(dtype)


def written(path: Path) -> File:
    """Return a file that was written."""
    return File(path.name, path.read_bytes())


def empty_files(folder: Path, names: Iterable[str]) -> None:
    """Make empty files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


# ---------------------------------------------------------------------- images


def pillow(image: Image.Image, name: str, **options: object) -> File:
    """Return an image as Pillow writes it; the name says the format."""
    data = io.BytesIO()
    image.save(data, {".jpg": "JPEG", ".tif": "TIFF"}.get(name[-4:], name[-3:]), **options)
    return File(name, data.getvalue())


def image_files(folder: Path) -> list[File]:
    """Return images of all formats and depths."""
    plain = Image.fromarray(grey((9, 11)))
    colour = Image.fromarray(grey((9, 11, 3)))
    webp = io.BytesIO()
    colour.save(webp, "WEBP")
    write_png(folder / "wide.png", grey((5, 6), "u2"), GREY)
    write_png(folder / "wide_rgb.png", grey((5, 6, 3), "u2"), COLOUR)
    write_tiff(folder / "wide.tif", grey((5, 6), "u2"))
    write_tiff(folder / "big.tif", grey((5, 6, 3), "f4"), photometric=2, order=">")
    wide = ("wide.png", "wide_rgb.png", "wide.tif", "big.tif")
    return [
        pillow(plain, "grey.png"),
        pillow(colour, "rgb.png"),
        pillow(plain.convert("P"), "palette.png"),
        pillow(colour.convert("RGBA"), "alpha.png"),
        pillow(colour, "a.jpg", progressive=True),
        pillow(colour.convert("CMYK"), "b.jpg"),
        pillow(colour, "a.bmp"),
        pillow(colour, "a.gif"),
        pillow(colour, "a.tif", compression="tiff_lzw"),
        pillow(plain, "b.tif"),
        pillow(Image.fromarray(grey((5, 6), "i4")), "c.tif", compression="tiff_adobe_deflate"),
        File("a.webp", webp.getvalue()),
        *(written(folder / name) for name in wide),
    ]


def mask_files(folder: Path) -> list[File]:
    """Return masks: 0 and 255, 0 and 1, bits, wide ones."""
    values = np.zeros((9, 11), np.uint8)
    values[3:6, 2:7] = 255
    write_png(folder / "wide.png", (values > 0).astype("u2") * 65535, GREY)
    write_tiff(folder / "float.tif", (values > 0).astype("f4"))
    return [
        pillow(Image.fromarray(values), "a.png"),
        pillow(Image.fromarray(values // 255), "labels.png"),
        pillow(Image.fromarray(values).convert("1"), "bits.png"),
        pillow(Image.fromarray(values).convert("P"), "a.gif"),
        pillow(Image.fromarray(values), "a.bmp"),
        written(folder / "wide.png"),
        written(folder / "float.tif"),
    ]


def dicom_files(folder: Path) -> list[File]:
    """Return DICOM files: plain, with a window, of colour, of several frames, enhanced."""
    values = grey((6, 8), "u2")
    where = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    window = {"WindowCenter": 500, "WindowWidth": 400, "RescaleSlope": 2, "RescaleIntercept": -99}
    frames = np.stack([values, values + 1, values + 2])
    write_dicom_file(folder / "plain.dcm", values, **where, PixelSpacing=[1, 2])
    write_dicom_file(folder / "window.dcm", values.astype("i2"), BitsStored=12, **window)
    write_dicom_file(folder / "inverted.dcm", grey((6, 8)), PhotometricInterpretation="MONOCHROME1")
    write_dicom_file(folder / "rgb.dcm", grey((6, 8, 3)))
    write_dicom_file(folder / "frames.dcm", frames)
    places = [[0, 0, 3 * k] for k in range(3)]
    write_enhanced(folder / "enhanced.dcm", frames, places, [(1, 0)] * 3, [(500, 400)] * 3)
    return [written(path) for path in sorted(folder.glob("*.dcm"))]


def nifti_files(folder: Path) -> list[File]:
    """Return volumes: NIfTI-1 and 2, scaled, compressed, of four axes; MGH."""
    values = grey((4, 5, 3), "i2")
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    scaled = nibabel.Nifti1Image(values, affine)
    scaled.header.set_slope_inter(0.5, -3)
    images = {
        "a.nii": nibabel.Nifti1Image(values, affine),
        "float.nii": nibabel.Nifti1Image(values.astype("f4"), affine),
        "scaled.nii.gz": scaled,
        "two.nii": nibabel.Nifti2Image(values.astype("u1"), affine),
        "four.nii": nibabel.Nifti1Image(grey((3, 3, 2, 2), "i2"), affine),
        "a.mgz": nibabel.MGHImage(values.astype("f4"), affine),
    }
    for name, image in images.items():
        nibabel.save(image, folder / name)
    return [written(folder / name) for name in images]


# ---------------------------------------------------------------------- text


def texts(name: str, *contents: str) -> list[File]:
    """Return text files of one name."""
    return [File(name, content.encode()) for content in contents]


def shot_lists() -> list[File]:
    """Return shot lists."""
    draws = "n-0: a_1.png a_2.png\na-0: b_1.png b_2.png\n"
    return texts("2-shot.txt", draws, draws + "n-1: a_2.png c-1.png\r\na-1: b_2.png b_1.png\r\n")


def toml_files() -> list[File]:
    """Return files object.toml."""
    return texts(
        "object.toml",
        'noun = "brain"\nmasks = true\nmask_rule = "any"\nintensity = "0:80"\n',
        "cases = '(?P<case>\\d+)_(?P<slice>\\d+)'\nintensity = \"auto\"\n",
    )


def case_tables() -> list[File]:
    """Return files cases.csv."""
    return texts(
        "cases.csv",
        "file,case,slice\na_1.png,7,1\na_2.png,7,2\ntest/good/img/a_1.png,8,\n",
        '"file","case"\r\n"./b_1.png","x, y"\r\n',
    )


def image_tables() -> list[File]:
    """Return tables of images to be converted."""
    return texts(
        "table.csv",
        "image,label,case,split\na_1.png,good,1,valid\na_2.png,Ungood,1,valid\nb_1.png,0,2,test\n",
        "image;label;slice\na_1.png;1;3\n",
    )


def ledgers() -> list[File]:
    """Return records of downloads."""
    entry = {"url": "https://host/a", "size": 3, "sha256": KEY, "date": "2026-01-01T00:00:00+00:00"}
    content = {"Brain": entry | {"files": {"a": KEY}}, "Liver": entry}
    return texts("downloads.lock.json", json.dumps(content, indent=2))


def origins() -> list[File]:
    """Return notes beside a part of a download."""
    return texts("note.json", json.dumps({"url": "https://host/a", "mark": "x", "total": 9}))


def prediction_logs() -> list[File]:
    """Return the settings and the log of a run of predict.py."""
    columns = {"score": 0.5, "p_value": 0.2, "normals_below": 3, "normals": 4, "label": "normal"}
    columns |= {"threshold": 0.6, "display": 0.1, "boxes": [[1, 2, 3, 4]]}
    whole = columns | {"slice": "", "p_value": "", "normals_below": "", "normals": ""}
    rows = [columns | {"slice": 3}, columns | {"slice": 4}, whole]
    row = {"name": "a.nii", "rows": rows, "wide": True, "notes": ["oblique"]}
    failed = {"name": "b.png", "error": "b.png is not a readable image"}
    lines = (line_of(row) + line_of(failed)).decode()
    return [*texts("run.json", json.dumps(RUN)), *texts("rows.jsonl", lines)]


# ---------------------------------------------------------------------- networks


def clip_file(folder: Path) -> Path:
    """Write weights of the small network."""
    path = folder / "clip.pt"
    torch.save(random_state(CLIP), path)
    return path


def method(folder: Path) -> Mvfa:
    """Return MVFA of the small network."""
    clip = create_model(None, clip_file(folder), image_size=32)
    generator = torch.Generator().manual_seed(0)
    return mvfa_method(MVFA(clip.visual, WIDTH, LEVELS, released_form(), generator))


def checkpoints(mvfa: Mvfa) -> list[File]:
    """Return two checkpoints of this program."""
    about = {"format": 1, "object": "Brain", "shot": 4, "ended": True, "epoch": 3.0}
    about |= {"shots": {"normal": ["a_1.png"], "abnormal": ["ü.png"]}, "seed": 111, "commit": None}
    first = mvfa.state()
    second = {key: {n: -value for n, value in group.items()} for key, group in first.items()}
    contents = [own_files.encode(first, about), own_files.encode(second, about | {"seed": 112})]
    return [File("Brain.pth", content) for content in contents]


def authors_checkpoints(mvfa: Mvfa) -> list[File]:
    """Return a checkpoint as the authors write it, and a bare pickle."""
    content = mvfa.state()
    return [File("Brain.pth", saved(content)), File("Brain.pth", pickle.dumps(content))]


class Named(torch.nn.Module):
    """A module of parameters and modules, by dotted names."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        below: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                below.setdefault(first, {})[rest] = value
            else:
                self.register_parameter(name, torch.nn.Parameter(value))
        for name, inner in below.items():
            self.add_module(name, Named(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def scripted(state: dict[str, torch.Tensor]) -> bytes:
    """Return a TorchScript archive of weights."""
    data = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, but the published files are
        torch.jit.save(torch.jit.trace(Named(state), torch.ones(1)), data)
    return data.getvalue()


def weight_files(_: Path) -> list[File]:
    """Return weights in every format."""
    state = random_state(SMALLEST)
    half = {name: value.half() for name, value in state.items()}
    return [
        File("clip.pt", saved(half)),
        File("clip.pt", saved({"epoch": 3, "state_dict": state})),
        File("clip.pt", scripted(half)),
        File("clip.safetensors", save(half, metadata={"format": "pt"})),
        File("clip.pt", saved(half, _use_new_zipfile_serialization=False)),
        File("clip.pt", pickle.dumps(half)),
    ]


def detectors(clip: Path, folder: Path) -> list[File]:
    """Return detectors: few-shot and zero-shot."""
    files = []
    for few in (True, False):
        random_detector(clip, few=few).save(folder / "Brain.detector")
        files.append(written(folder / "Brain.detector"))
    return files


def states(folder: Path) -> list[File]:
    """Return two states of a training."""
    files = []
    for number in (1, 2):
        tensors = {"model.a": torch.arange(6.0) * number, "generator": torch.arange(9).byte()}
        values = {"epoch": number, "losses": [0.5, 1e-3], "command": {"obj": "Brain", "init": None}}
        write_state(folder / "x.state", State(tensors, values))
        files.append(written(folder / "x.state"))
    return files


def text_entries() -> list[File]:
    """Return two entries of the text cache."""
    generator = torch.Generator().manual_seed(1)
    files = []
    for _ in range(2):
        drawn = torch.randn(WIDTH, 2, generator=generator)
        features = torch.nn.functional.normalize(drawn, dim=0)
        files.append(File("x.pt", own_files.encode({GROUP: {NAME: features}}, {"key": KEY})))
    return files


# ---------------------------------------------------------------------- results and archives


def write_run(folder: Path) -> None:
    """Write the files of a run: metrics.json, curves.json, scores.csv and pictures."""
    cell = done("table1", "row", "Brain", 0.9, 0.8, folder=folder)
    metrics = {**cell.metrics, **cell.training, "mask_rule": "half", "masks": True}
    metrics["options"] |= {"obj": "Brain", "script": "test_few", "shot": 4, "iterate": 0, "seed": 1}
    metrics["weights"] = {"file": "clip.pt", "sha256": KEY}
    metrics["versions"] = {"mvfa": "1", "torch": "2"}
    metrics["training"] = {"select": "last", "epoch": 50, "learning_rate": 1e-3, "seed": 1}
    metrics["test_images"] = {"normal": 2, "abnormal": 1, "cases": None}
    metrics["disjoint_cases"] = {"image_auroc": 0.8, "images": 2, "left_out": 1, "cases": 1}
    rates = [{"rate": 0.05, "share": 0.1, "low": 0.0, "high": 0.3}]
    reliability = {"normals": 30, "false_positive_rates": rates, "probability": None}
    metrics["calibrated"] = {"image_auroc": 0.7, "images": 40, "reliability": reliability}
    both = metrics["details"]["image"]["both"]
    both["interval_by_case"] = {"auroc": [0.5, 0.9], "cases": 3}
    both["within_case"] = {"auroc": 0.6, "used": 2, "left_out": 1}
    curves: dict[str, dict[str, dict[str, object]]] = {}
    for granularity, branches in metrics["details"].items():
        for branch, measures in branches.items():
            points = {kind: measures.pop(kind)[::50] for kind in ("roc", "pr")}
            curves.setdefault(granularity, {})[branch] = points
    (folder / "curves.json").write_text(json.dumps(curves))
    rows = ["file,label,score,text_score,memory_score,case,slice"]
    files = [entry["file"] for entry in metrics["pictures"]]
    rows += [f"{name},{k % 2},0.{k},0.{9 - k},0.{k},case{k},{k}" for k, name in enumerate(files)]
    (folder / SCORES).write_text("\n".join(rows) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))


def run_files(folder: Path) -> list[File]:
    """Return the files of that run that reproduce.py reads into its page."""
    return [written(folder / name) for name in ("metrics.json", "curves.json", SCORES)]


def tarred(mode: str, **contents: bytes) -> bytes:
    """Return a tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"Brain_AD/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def archives() -> list[File]:
    """Return archives of images: tar, plain and compressed, and zip."""
    contents = {"a.png": b"image", "b.png": bytes(600)}
    names = {f"Brain_AD/{name}": content for name, content in contents.items()}
    return [
        File("a.tar", tarred("w", **contents)),
        File("a.tar.gz", tarred("w:gz", **contents)),
        File("a.tar.xz", tarred("w:xz", **contents)),
        File("a.tar.bz2", tarred("w:bz2", **contents)),
        File("a.zip", zipped(names)),
        File("a.zip", zipped(names, zipfile.ZIP_DEFLATED)),
    ]


def uploads() -> list[File]:
    """Return ZIP files of images."""
    image = pillow(Image.fromarray(grey((9, 11))), "a.png").data
    return [
        File("a.zip", zipped({"a.png": image, "b/c.png": image}, zipfile.ZIP_DEFLATED)),
        File("b.zip", zipped({"a.png": image, "__MACOSX/._a.png": b"x"})),
    ]

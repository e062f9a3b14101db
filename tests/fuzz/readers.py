"""The readers of files from elsewhere: small valid files of each kind, and how they are read.

A target's `make` writes what its reader needs beside an input to a folder and returns the reader:
a function of the path of an input. That raises UserError, or returns what the file holds: for the
files of this program that have a digest (`own`) something that compares.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis.strategies import SearchStrategy

from CLIP.weights import create_model
from dataset.cases import read_table as read_cases
from dataset.catalog import ANY, HALF, object_info, read_settings
from dataset.dicom import iter_frames
from dataset.intensity import DEFAULT
from dataset.masks import mask_bands, read_mask
from dataset.pixels import check_file, pixels_to_rgb, read_rgb
from dataset.shots import find, read_list
from errors import UserError
from mvfa import checkpoint, own_files
from mvfa.calibration import shift_warning
from mvfa.detector import Detector
from mvfa.detector_file import read_description, read_tensors
from mvfa.run_files import load_metrics, read_scores, sealed
from mvfa.run_page import run_page
from mvfa.state_file import read_state
from mvfa.text_cache import read_entry
from prediction.app_upload import Limits, collect
from prediction.discovery import VOLUME, Source
from prediction.page import summarise, write_page
from prediction.reading import Reading, load
from prediction.records import begin, records, write_table
from preparation.archive import unpacked
from preparation.assets import Item
from preparation.convert_tables import read_csv
from preparation.download import check_list
from preparation.ledger import Ledger
from preparation.transfer import Part
from report.page import write_report
from report.study import Study, TableSpec, load_cell
from scans.series import read_file
from tests.fuzz import seeds, structured
from tests.fuzz.seeds import File
from tests.methods import load_mvfa

Read = Callable[[Path], Any]
PLAIN = Reading(DEFAULT, None, "none", None, None, None, None)
LEAST = 2**27  # bytes that an upload may have


@dataclass(frozen=True)
class Target:
    """A reader, and how its answers are judged.

    Args:
        make: see above.
        own: whether its files have a digest, so that a changed one may not be taken.
        cache: whether it returns None for what it cannot use.
        weight: its share of the inputs.

    """

    make: Callable[[Path], "Bench"]
    own: bool = False
    cache: bool = False
    weight: int = 4


class Bench(NamedTuple):
    """What a target's `make` returns: valid files, the reader, and a strategy of further files."""

    files: Sequence[File]
    read: Read
    structured: SearchStrategy[File] | None = None


def images(folder: Path) -> Bench:
    """Read image files as the scripts read them."""

    def read(path: Path) -> None:
        check_file(path)
        read_rgb(path, DEFAULT)

    return Bench(seeds.image_files(folder), read)


def masks(folder: Path) -> Bench:
    """Read masks, by both rules."""

    def read(path: Path) -> None:
        for rule in (HALF, ANY):
            read_mask(path, rule)
        mask_bands(path)

    return Bench(seeds.mask_files(folder), read)


def dicom(folder: Path) -> Bench:
    """Read DICOM files, as images and as volumes."""

    def read(path: Path) -> None:
        refused = None
        try:
            for pixels in iter_frames(path):
                pixels_to_rgb(pixels, DEFAULT)
        except UserError as error:
            refused = error
        read_file(path)
        if refused is not None:
            raise refused

    return Bench(seeds.dicom_files(folder), read, structured.dicom_files(folder))


def nifti(folder: Path) -> Bench:
    """Read NIfTI files as predict.py reads them."""

    def read(path: Path) -> None:
        load(Source(path.parent, (path.name,), VOLUME), PLAIN)

    return Bench(seeds.nifti_files(folder), read, structured.nifti_files())


def shot_lists(folder: Path) -> Bench:
    """Read shot lists, and the records of the images that they name."""
    info = object_info("Brain")
    place = folder / "Brain_AD" / "valid" / "good" / "img"
    seeds.empty_files(place, seeds.NAMES)

    def read(path: Path) -> None:
        normal, abnormal = read_list(path, 0)
        find(place, info, normal + abnormal, path)

    return Bench(seeds.shot_lists(), read, structured.shot_lists())


def downloaded_lists(_: Path) -> Bench:
    """Read shot lists as they arrive from a server."""

    def read(path: Path) -> None:
        check_list(path, Item("shots", "https://host/4-shot.txt", "4-shot.txt", path))

    return Bench(seeds.shot_lists(), read, structured.shot_lists())


def settings(_: Path) -> Bench:
    """Read files object.toml."""
    return Bench(seeds.toml_files(), read_settings, structured.toml_files())


def case_tables(_: Path) -> Bench:
    """Read files cases.csv."""

    def read(path: Path) -> None:
        top = path.parent
        read_cases(top).find([top / name for name in (*seeds.NAMES, "test/good/img/a_1.png")])

    return Bench(seeds.case_tables(), read, structured.case_tables())


def image_tables(folder: Path) -> Bench:
    """Read CSV files that list images to be converted."""
    seeds.empty_files(folder, seeds.NAMES)

    def read(path: Path) -> None:
        for name in seeds.NAMES:
            (path.parent / name).touch()
        read_csv(path, None, None)

    return Bench(seeds.image_tables(), read, structured.image_tables())


def checkpoints(folder: Path) -> Bench:
    """Read checkpoints of this program, which have a digest."""
    method = seeds.method(folder)

    def read(path: Path) -> str:
        found = load_mvfa(path)
        checkpoint.apply(method, found)
        return own_files.digest_of(found.adapters, found.about)

    return Bench(seeds.checkpoints(method), read, structured.checkpoints(method))


def authors_checkpoints(folder: Path) -> Bench:
    """Read checkpoints without a description, as the authors' are."""
    method = seeds.method(folder)

    def read(path: Path) -> None:
        checkpoint.apply(method, load_mvfa(path))

    return Bench(seeds.authors_checkpoints(method), read)


def weights(folder: Path) -> Bench:
    """Read weights of CLIP in every format."""
    return Bench(
        seeds.weight_files(folder),
        lambda path: create_model(None, path, image_size=32),
        structured.safetensors(),
    )


def detectors(folder: Path) -> Bench:
    """Read detectors, with the network that they were made with."""
    clip = seeds.clip_file(folder)

    def read(path: Path) -> str:
        Detector.load(path, clip_path=clip)(seeds.grey((9, 11)))
        about = read_description(path)
        return own_files.digest_of({"": read_tensors(path, about)}, about)

    files = seeds.detectors(clip, folder)
    return Bench(files, read, structured.detectors(files[0]))


def states(folder: Path) -> Bench:
    """Read states of trainings."""
    return Bench(
        seeds.states(folder), lambda path: read_state(path).digest(), structured.safetensors()
    )


def text_entries(_: Path) -> Bench:
    """Read entries of the cache of text features."""

    def read(path: Path) -> str | None:
        found = read_entry(path, seeds.KEY, seeds.WIDTH)
        return None if found is None else own_files.digest_of({"": {"": found}}, {})

    return Bench(seeds.text_entries(), read)


def results(folder: Path) -> Bench:
    """Read files metrics.json and curves.json of a run, as reproduce.py puts them into its page."""
    run = folder / "run"
    seeds.write_run(run)
    spec = TableSpec("table1", "Table 1", "caption", ("row",), ("Brain",), heat_maps=True)

    def read(path: Path) -> None:
        shutil.copytree(run, path.parent / "run")
        path.replace(path.parent / "run" / path.name)
        test = path.parent / "run"
        cell = load_cell("table1", "row", "Brain", seed=1, draw=0, test=test, training=test)
        study = Study("study", False, (spec,), (cell,))
        with (
            patch("report.page.plotly_script", str),
            patch("utils.flush"),  # to the disk
            patch("mvfa.run_page.plotly_script", str),
        ):
            write_report(study, path.parent / "report")
            run_page(test)

    return Bench(seeds.run_files(run), read, structured.run_files(run))


def sealed_results(folder: Path) -> Bench:
    """Read results that state their digest, of which nothing may have been changed."""
    run = folder / "run"
    seeds.write_run(run)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(sealed(metrics, run), indent=2))

    def read(path: Path) -> str:
        for name in ("metrics.json", "curves.json", "scores.csv"):
            if name != path.name:
                shutil.copyfile(run / name, path.with_name(name))
        found = load_metrics(path.parent)
        return json.dumps([found, vars(read_scores(path.parent))], default=str)

    return Bench(seeds.run_files(run), read)


def scores(folder: Path) -> Bench:
    """Read files scores.csv of a run."""
    run = folder / "run"
    seeds.write_run(run)
    return Bench(
        [File("scores.csv", (run / "scores.csv").read_bytes())],
        lambda path: read_scores(path.parent),
        structured.scores(),
    )


def archives(_: Path) -> Bench:
    """Read archives that prepare_data.py unpacks."""

    def read(path: Path) -> None:
        with unpacked(path, path.parent / "data"):
            pass

    return Bench(seeds.archives(), read, structured.archives())


def uploads(_: Path) -> Bench:
    """Read ZIP files that are dropped on the page of app.py."""

    def read(path: Path) -> None:
        top = path.parent / "upload"
        top.mkdir()
        collect([path], top, Limits(LEAST, LEAST, LEAST))

    return Bench(seeds.uploads(), read, structured.uploads())


def ledgers(_: Path) -> Bench:
    """Read the record of downloads."""

    def read(path: Path) -> None:
        ledger = Ledger(path.parent)
        ledger.check("Brain", "0" * 64, accept_new=False)

    return Bench(seeds.ledgers(), read, structured.ledgers())


def origins(_: Path) -> Bench:
    """Read notes beside a part of a download, which may say nothing usable."""

    def read(path: Path) -> Any:
        target = path.parent / "file"
        (path.parent / "file.part").write_bytes(b"half")
        path.replace(path.parent / "file.part.json")
        return Part(target).origin()

    return Bench(seeds.origins(), read, structured.origins())


def prediction_logs(_: Path) -> Bench:
    """Read the log and the settings of a run of predict.py that goes on."""

    def read(path: Path) -> None:
        out = path.parent
        summary = summarise(records(out))
        shift_warning(list(summary.p_values.values()))
        with patch("utils.flush"):  # to the disk
            write_table(out)
            write_page(out, summary, title="scores", facts={}, remarks=[])
        begin(out, seeds.RUN)

    return Bench(seeds.prediction_logs(), read, structured.prediction_logs())


TARGETS = {
    "image": Target(images, weight=10),
    "mask": Target(masks, weight=6),
    "DICOM": Target(dicom, weight=8),
    "NIfTI": Target(nifti, weight=8),
    "shot list": Target(shot_lists),
    "downloaded list": Target(downloaded_lists, weight=2),
    "object.toml": Target(settings),
    "cases.csv": Target(case_tables),
    "table of images": Target(image_tables, weight=2),
    "checkpoint": Target(checkpoints, own=True, weight=8),
    "checkpoint of the authors": Target(authors_checkpoints),
    "CLIP weights": Target(weights, weight=8),
    "detector": Target(detectors, own=True, weight=8),
    "training state": Target(states, own=True, weight=6),
    "text-cache entry": Target(text_entries, own=True, cache=True, weight=6),
    "metrics and curves": Target(results, weight=2),
    "sealed results": Target(sealed_results, own=True),
    "scores.csv": Target(scores),
    "archive": Target(archives, weight=6),
    "upload": Target(uploads),
    "ledger": Target(ledgers, weight=2),
    "part of a download": Target(origins, cache=True, weight=2),
    "log of predict.py": Target(prediction_logs, weight=2),
}

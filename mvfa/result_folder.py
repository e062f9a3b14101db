"""The folder of a run's results: new ones take the place of earlier ones when all are written."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvfa.run_files import CURVES, FILES, METRICS, PICTURES, SCORES
from utils import flush, part_of


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give a folder for new results, which then take the place of earlier ones in `out`.

    If anything fails within, such as on a full disk, the earlier results stay.
    """
    with part_of(out / "results") as stage:
        stage.mkdir()
        try:
            yield stage
        except OSError as error:
            if str(error.filename).startswith(str(stage)):
                error.filename = str(out / Path(error.filename).relative_to(stage))
            raise
        remove_results(out)
        for path in sorted((stage / PICTURES).glob("*")):
            (out / PICTURES).mkdir(exist_ok=True)
            path.replace(out / PICTURES / path.name)
        for name in (CURVES, SCORES, METRICS):  # the last says that the run is whole
            if (stage / name).exists():
                (stage / name).replace(out / name)
    with suppress(OSError):  # some systems cannot open a folder
        flush(out)


def remove_results(out: Path) -> None:
    """Remove the files of an earlier run from an output folder, metrics.json first."""
    from mvfa.pictures import remove_pictures  # imports OpenCV, which is slow

    for name in FILES:
        (out / name).unlink(missing_ok=True)
    remove_pictures(out)

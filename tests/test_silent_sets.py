"""Sets that would be scored wrongly without a word: masks that come out empty, other images."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dataset.catalog import object_info
from dataset.folder import ImageSet
from dataset.medical_few import evaluation_set
from errors import UserError
from mvfa import engine
from mvfa.defaults import DEFAULT_MODEL
from mvfa.distributed import World
from mvfa.inputs import note_published_counts
from synthetic.settings import MODEL as DEMO_MODEL
from tests.script_runs import OTHERS, Runs


@pytest.fixture
def runs(tiny_path, demo_root, tmp_path) -> Runs:
    return Runs(tiny_path, demo_root, tmp_path)


def save_dark(grey: np.ndarray, path: Path) -> None:
    """Write a mask of labels 0 and 1."""
    Image.fromarray((grey > 127).astype(np.uint8)).save(path)


def save_red(grey: np.ndarray, path: Path) -> None:
    """Write a mask in red on black."""
    Image.fromarray(np.stack([grey, 0 * grey, 0 * grey], axis=-1)).save(path)


def save_palette(grey: np.ndarray, path: Path) -> None:
    """Write a mask as a palette image of black and a dark colour."""
    image = Image.fromarray((grey > 127).astype(np.uint8)).convert("P")
    image.putdata((grey > 127).ravel().astype(int).tolist())
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


def save_alpha(grey: np.ndarray, path: Path) -> None:
    """Write a mask in the alpha channel of a black image."""
    image = Image.new("RGBA", grey.shape[::-1])
    image.putalpha(Image.fromarray(grey))
    image.save(path)


def save_float(grey: np.ndarray, path: Path) -> None:
    """Write a mask of floating point, 0 and 0.5."""
    path.unlink()
    Image.fromarray((grey > 127).astype(np.float32) / 2).save(path.with_suffix(".tif"))


# what a mask that comes out empty was made by, and whether --mask_rule any reads it
EMPTY_BY_HALF = {
    "labels": (save_dark, True),
    "red": (save_red, True),
    "palette": (save_palette, True),
    "alpha": (save_alpha, False),
    "floating point": (save_float, True),
}


@pytest.mark.parametrize("kind", EMPTY_BY_HALF)
@pytest.mark.parametrize("obj", ["Brain", "Liver"])
def test_some_masks_that_come_out_empty_are_refused(
    runs, tmp_path, demo_root, monkeypatch, kind, obj
):
    """Those of the object, and of one that a zero-shot training reads; the others are good.

    Before, they counted as background: 0.9824 instead of 0.9957, and 0.3014 instead of 0.9876.
    """
    monkeypatch.setattr(engine.Trainer, "step", lambda *_: pytest.fail("a step was made"))
    save, readable = EMPTY_BY_HALF[kind]
    data = tmp_path / "some"
    for name in ("Brain", *OTHERS):
        if name == obj:
            shutil.copytree(demo_root / "data" / f"{name}_AD", data / f"{name}_AD")
        else:
            data.mkdir(exist_ok=True)
            (data / f"{name}_AD").symlink_to(demo_root / "data" / f"{name}_AD")
    for mask in sorted((data / f"{obj}_AD/test/Ungood/anomaly_mask").iterdir())[3:]:
        save(np.asarray(Image.open(mask).convert("L")), mask)
    refusal = rf"{obj}_AD.*003\.\w+ marks something, but no pixel is foreground"
    with pytest.raises(UserError, match=refusal) as error:
        runs("train_zero", "Brain", data=data)
    assert ("--mask_rule any" in str(error.value)) == readable


def test_counts_that_differ_from_the_published_ones_are_said(runs, demo_root, capsys):
    """Of an object's test images, and of those that a zero-shot training reads. Not in a demo."""
    runs("train_zero", "Brain", "--epoch", 1)
    said = [line for line in capsys.readouterr().err.splitlines() if "published" in line]
    start = "note: test images are not the benchmark's: "
    end = ", so results are not comparable with published ones"
    others = "Liver has 10 (published: 1,493), Retina_RESC has 10 (published: 1,805), "
    others += "Retina_OCT2017 has 10 (published: 968), Chest has 10 (published: 17,194), "
    others += "Histopathology has 10 (published: 1,997)"
    assert said == [start + others + end, f"{start}Brain has 10 (published: 3,715){end}"]
    runs("test_zero", "Brain")
    assert f"{start}Brain has 10 (published: 3,715){end}" in capsys.readouterr().err
    assert runs.metrics("test_zero")["test_images"]["published"] == 3_715
    options = SimpleNamespace(model_name=DEMO_MODEL)
    images = evaluation_set(demo_root / "data", object_info("Brain"), 32)
    note_published_counts(images, options, World())
    options.model_name = DEFAULT_MODEL
    images.records = images.records * 372
    note_published_counts(ImageSet(images.records[:3_715], 32), options, World())
    assert capsys.readouterr().err == ""

"""Which images are chosen, what their panels show, and which files are written."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_fill_holes
from sklearn.metrics import roc_auc_score

from mvfa.panels import (
    MARKED_COLOUR,
    OPACITY,
    TRUE_COLOUR,
    Picture,
    Sheet,
    border,
    colours,
    overlay,
    panel,
)
from mvfa.pictures import choose, choose_ranked, misranked, remove_pictures, write_pictures
from synthetic.images import picture as demo_picture

SIDE = 40
ZOOM = 6  # what brings SIDE to at least 224


def disc(side: int = SIDE, radius: float = 0.25) -> np.ndarray:
    """Return a bool disc in the middle."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    return x**2 + y**2 < radius**2


def make(side: int = SIDE, **changes) -> Picture:
    """Make a few-shot picture of a painted brain with a disc for a lesion."""
    image, _ = demo_picture("Brain", "test", "Ungood", 0, seed=1)
    rng = np.random.default_rng(side)
    text, memory = rng.random((2, side, side), dtype=np.float32)
    picture = Picture(
        index=7,
        file="Brain_AD/test/Ungood/img/000.png",
        label=1,
        score=0.75,
        rank="worst",
        image=np.asarray(cv2.resize(image, (side, side)), np.uint8),
        mask=disc(side),
        text_map=text,
        memory_map=memory,
        final_map=(text + memory) / 2,
    )
    return replace(picture, **changes)


def tiles(picture: Picture, threshold: float = 0.5, **options) -> list[np.ndarray]:
    """Cut the images of a panel out of it."""
    count = 4 + len(picture.maps())
    side = len(picture.image) * -(-224 // len(picture.image))
    sheet = Sheet(side, count)
    drawn = panel(picture, threshold, **options)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (sheet.canvas.height, sheet.canvas.width, 3)
    lefts = [sheet.gap + n * (side + sheet.gap) for n in range(count)]
    return [drawn[sheet.top : sheet.top + side, left : left + side] for left in lefts]


def test_worst_first_on_a_small_hand_case():
    #                        0    1    2    3    4    5
    scores = torch.tensor([0.1, 0.9, 0.4, 0.2, 0.8, 1.0])
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    # normal: 1 beats two of three abnormal, 2 beats one
    # abnormal: 3 loses to two of three normal, 4 to one, 5 to none
    expected = [0, 2 / 3, 1 / 3, 2 / 3, 1 / 3, 0]
    torch.testing.assert_close(
        misranked(scores, labels), torch.tensor(expected, dtype=torch.float64)
    )
    # gaps 0.9 and 0.8, 0.4 and 0.2, 0.1 and 0.0
    assert choose(scores, labels, 6, "worst") == [1, 3, 2, 4, 0, 5]
    assert choose(scores, labels, 6, "best") == [5, 0, 4, 2, 3, 1]
    assert choose(scores, labels, 2, "worst") == [1, 3]
    assert choose(scores, labels, 0, "worst") == []
    assert choose(scores, labels, 99, "worst") == choose(scores, labels, 6, "worst")


@pytest.mark.parametrize("order", ["worst", "best"])
def test_labels_take_turns(order):
    """Two images show both labels even if the worst ten are all normal."""
    scores = torch.cat([torch.linspace(0.6, 0.9, 10), torch.tensor([0.5, 0.95])])
    labels = (torch.arange(12) >= 10).float()
    for count in range(2, 5):
        chosen = choose(scores, labels, count, order)
        assert len(set(chosen)) == count
        assert {int(labels[i]) for i in chosen} == {0, 1}
    whole = choose(scores, labels, 12, order)
    assert sorted(whole) == list(range(12))
    shown = labels[whole].tolist()
    assert shown[0] != shown[1]
    assert shown[:4] == [shown[0], shown[1]] * 2
    assert set(shown[4:]) == {0}  # no abnormal image is left


def test_no_image_gives_no_picture():
    assert choose(torch.zeros(0), torch.zeros(0), 3, "worst") == []


def test_ties_go_by_index():
    scores = torch.full((6,), 0.5)
    labels = torch.tensor([0.0, 1, 0, 1, 0, 1])
    assert choose(scores, labels, 4, "worst") == choose(scores, labels, 4, "best") == [0, 1, 2, 3]


def test_each_class_comes_by_its_score():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 12, (60,), generator=generator) / 12
    labels = torch.randint(0, 2, (60,), generator=generator).float()
    worst, best = (choose(scores, labels, 60, order) for order in ("worst", "best"))
    for label, sign in ((1, 1), (0, -1)):
        for order, towards in ((worst, sign), (best, -sign)):
            met = [towards * scores[i].item() for i in order if labels[i] == label]
            assert met == sorted(met)


def test_the_mean_of_either_class_is_one_minus_auroc():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (50,), generator=generator) / 9  # with ties
    labels = (torch.arange(50) % 3 == 0).float()
    share = misranked(scores, labels)
    expected = 1 - roc_auc_score(labels, scores)
    assert share[labels == 1].mean().item() == pytest.approx(expected)
    assert share[labels == 0].mean().item() == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_goes_by_score(label):
    scores = torch.tensor([0.3, 0.9, 0.1])
    labels = torch.full((3,), float(label))
    assert choose(scores, labels, 3, "worst") == ([1, 0, 2] if label == 0 else [2, 0, 1])


def test_random_choice_follows_its_generator():
    scores = torch.rand(30)
    labels = torch.zeros(30)

    def drawn(seed: int, count: int) -> list[int]:
        return choose(scores, labels, count, "random", torch.Generator().manual_seed(seed))

    assert drawn(1, 10) == drawn(1, 10) == drawn(1, 30)[:10]
    assert drawn(1, 30) != drawn(2, 30)
    assert sorted(drawn(1, 99)) == list(range(30))


@pytest.mark.parametrize(("count", "order"), [(3, "middle"), (3, "random"), (-1, "worst")])
def test_a_wrong_order_is_refused(count, order):
    with pytest.raises(ValueError, match="allowed: worst, best, random"):
        choose(torch.rand(5), torch.zeros(5), count, order)


def test_mixed_pictures_are_worst_ones_and_random_ones_that_two_scorings_share():
    labels = (torch.arange(40) % 4 == 0).int()

    def chosen(seed: int, count: int = 7) -> dict[int, str]:
        scores = torch.rand(40, generator=torch.Generator().manual_seed(seed))
        ranked = choose_ranked(scores, labels, count, "mixed", torch.Generator().manual_seed(1))
        assert len({index for index, _ in ranked}) == len(ranked) == min(count, 40)
        worst = [index for index, rank in ranked if rank == "worst"]
        random = {index for index, rank in ranked if rank == "random"}
        others = [i for i in choose(scores, labels, 40, "worst") if i not in random]
        assert worst == others[: count // 2]
        return dict(ranked)

    one, two = chosen(2), chosen(3)
    random = [index for index, rank in one.items() if rank == "random"]
    assert random == [index for index, rank in two.items() if rank == "random"]
    assert [int(labels[index]) for index in random] == [1, 0, 1, 0]
    assert one != two
    assert len(chosen(2, count=50)) == 40


def test_other_orders_are_those_of_choose():
    scores = torch.rand(9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 2
    for order in ("worst", "best", "random"):
        pair = [torch.Generator().manual_seed(5) for _ in range(2)]
        ranked = choose_ranked(scores, labels, 4, order, pair[0])
        assert ranked == [(i, order) for i in choose(scores, labels, 4, order, pair[1])]


def test_colours():
    flat = colours(np.full((9, 9), 0.3), (0, 1)).reshape(-1, 3)
    assert (flat == flat[0]).all()
    assert (
        colours(np.full((9, 9), 0.3), (0.3, 0.3)) == colours(np.zeros((9, 9)), (0, 1))
    ).all()  # no range
    ramp = colours(np.linspace(0, 1, 256)[None], (0, 1))[0]
    assert len(np.unique(ramp, axis=0)) > 250
    assert ramp[-1, 0] > 200 > 100 > ramp[-1, 2]  # viridis ends in yellow: red first, blue last
    beyond = colours(np.array([[-0.5, 0.0, 1.0, 1.5]]), (0, 1))[0]
    assert (beyond[0] == beyond[1]).all()
    assert (beyond[2] == beyond[3]).all()


def test_a_value_has_one_colour_in_all_panels():
    value = np.float32(0.4)
    low = make()
    high = make()
    low.final_map[:] = 0.1
    high.final_map[:] = 0.9
    low.final_map[5, 5] = value
    high.final_map[5, 5] = value

    def colour(picture: Picture, **options) -> np.ndarray:
        return tiles(picture, **options)[4][5 * ZOOM, 5 * ZOOM]

    assert (colour(low) == colour(high)).all()
    dull = [replace(p, text_map=p.final_map, memory_map=None) for p in (low, high)]
    own = [tiles(p, scale=None)[3][5 * ZOOM, 5 * ZOOM] for p in dull]
    assert (own[0] != own[1]).any()  # one is this image's highest value, the other its lowest
    assert (panel(low, 0.5, None) != panel(low, 0.5)).any()


def test_a_panels_own_range_is_that_of_all_its_maps():
    picture = make()
    values = np.stack(list(picture.maps().values()))
    own = float(values.min()), float(values.max())
    for shown, expected in zip(
        tiles(picture, scale=None)[2:5], tiles(picture, scale=own)[2:5], strict=True
    ):
        assert (shown == expected).all()
    below = np.s_[-120:]  # the caption says which of the two it is
    assert (panel(picture, 0.5, None)[below] != panel(picture, 0.5, own)[below]).any()


def test_columns():
    picture = make()
    shown = tiles(picture)
    assert len(shown) == 7
    assert (shown[0][::ZOOM, ::ZOOM] == picture.image).all()
    for tile, values in zip(shown[2:5], picture.maps().values(), strict=True):
        assert (tile[::ZOOM, ::ZOOM] == colours(values, (0, 1))).all()
    changed = (shown[1] != shown[0]).any(axis=2)
    assert (changed == disc().repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    expected = overlay(picture.image, picture.final_map)
    assert np.abs(shown[5][::ZOOM, ::ZOOM].astype(int) - expected).max() <= 1
    assert len(tiles(replace(picture, memory_map=None))) == 6


def test_overlay_shows_the_image_where_the_map_is_low():
    image = np.full((1, 2, 3), 100, np.uint8)
    values = np.array([[0.0, 1.0]], np.float32)
    shown = overlay(image, values)[0].astype(float)
    for pixel, opacity, colour in zip(shown, OPACITY, colours(values)[0], strict=True):
        expected = opacity * colour + (1 - opacity) * 100
        np.testing.assert_allclose(pixel, expected, atol=0.5001)
    # the same value has the same colour in any image of the test set
    assert (overlay(image, values)[0, 0] == overlay(image, values[:, ::-1])[0, 1]).all()


def test_panel_text_is_large():
    """A tenth of the image's side, so that it can be read at half size."""
    assert Sheet(240, 7).unit == 24
    assert Sheet(480, 7).unit == 48


def test_objects_without_masks_say_so():
    bare = make(mask=None)
    empty = make(mask=np.zeros((SIDE, SIDE), bool))
    notes = [(tiles(p)[1] != tiles(p)[0]).any(axis=2) for p in (bare, empty)]
    assert all(0 < note.mean() < 0.2 for note in notes)  # a note in the middle, the image around it
    assert (notes[0] != notes[1]).any()
    assert not (tiles(bare, threshold=2)[6] == TRUE_COLOUR).all(axis=2).any()


@pytest.mark.parametrize("side", [32, 112, 240])
def test_contours_enclose_the_regions(side):
    lesion = disc(side, 0.3)
    marked = disc(side, 0.2)
    zoom = -(-224 // side)
    black = make(side, image=np.zeros((side, side, 3), np.uint8), mask=lesion)
    black = replace(black, final_map=np.where(marked, np.float32(0.5), np.float32(0.499)))
    shown = tiles(black, threshold=0.5)[-1]
    for region, colour in ((marked, MARKED_COLOUR), (lesion, TRUE_COLOUR)):
        drawn = (shown == colour).all(axis=2)
        assert (binary_fill_holes(drawn) == region.repeat(zoom, 0).repeat(zoom, 1)).all()
        assert drawn.sum() < 0.3 * region.sum() * zoom**2
    assert not (tiles(black, threshold=0.51)[-1] == MARKED_COLOUR).all(axis=2).any()


def test_border_follows_holes_and_the_edge_of_the_image():
    region = np.ones((7, 7), bool)
    region[3, 3] = False
    expected = np.ones((7, 7), bool)
    expected[1:6, 1:6] = False
    expected[2:5, 2:5] = True
    expected[3, 3] = False
    assert (border(region) == expected).all()


@pytest.mark.parametrize("side", [112, 240, 336])
@pytest.mark.parametrize("few", [True, False])
def test_nothing_is_cut_off(side, few):
    """However long the file name and the caption, a margin of white is left on every side."""
    picture = make(side, file="x" * 400 + ".png", memory_map=make(side).memory_map if few else None)
    for scale in ((0.0, 1.0), None):
        drawn = panel(picture, 0.123, scale)
        for strip in (drawn[:4], drawn[-4:], drawn[:, :4], drawn[:, -4:]):
            assert (strip == 255).all()


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))  # another reader than the writer


def test_files(tmp_path):
    picture = make()
    (about,) = write_pictures(tmp_path, [picture], 0.5)
    assert about == {
        "file": "Brain_AD/test/Ungood/img/000.png",
        "label": 1,
        "score": 0.75,
        "rank": "worst",
        "panel": "pictures/00007.jpg",
        "image": "pictures/00007-image.png",
        "map": "pictures/00007-map.png",
        "mask": "pictures/00007-mask.png",
        "arrays": "pictures/00007.npz",
    }
    assert read(tmp_path / about["panel"]).shape == panel(picture, 0.5).shape
    error = read(tmp_path / about["panel"]).astype(float) - panel(picture, 0.5)
    assert np.sqrt(np.mean(error**2)) < 16  # JPEG, of maps that are noise
    image = read(tmp_path / about["image"])  # grey, which takes a third of the bytes
    assert (image[..., None] == picture.image).all()
    grey = read(tmp_path / about["map"])
    assert grey.shape == (SIDE, SIDE)
    np.testing.assert_allclose(grey / 255, picture.final_map, atol=0.5001 / 255)
    assert (read(tmp_path / about["mask"]) == 255 * disc()).all()
    with np.load(tmp_path / about["arrays"]) as arrays:
        assert list(arrays) == ["text", "memory", "final"]
        for name, values in picture.maps().items():
            assert arrays[name].dtype == np.float32
            assert arrays[name].tobytes() == values.tobytes()


def test_zero_shot_and_objects_without_masks_leave_files_out(tmp_path):
    pictures = [make(index=1, memory_map=None), make(index=2, mask=None)]
    zero, bare = write_pictures(tmp_path, pictures, 0.5)
    with np.load(tmp_path / zero["arrays"]) as arrays:
        assert list(arrays) == ["text", "final"]
    assert bare["mask"] is None
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    everything = {
        f"{n:05d}{end}"
        for n in (1, 2)
        for end in (".jpg", "-image.png", "-map.png", "-mask.png", ".npz")
    }
    assert names == everything - {"00002-mask.png"}


def test_colour_images_are_lossless(tmp_path):
    image, _ = demo_picture("Histopathology", "test", "Ungood", 0, seed=1)
    image = np.asarray(cv2.resize(image, (SIDE, SIDE)), np.uint8)
    (entry,) = write_pictures(tmp_path, [make(image=image)], 0.5)
    assert (read(tmp_path / entry["image"]) == image).all()


def test_files_of_an_earlier_run_are_removed_and_nothing_else(tmp_path):
    write_pictures(tmp_path, [make(index=1), make(index=2)], 0.5)
    folder = tmp_path / "pictures"
    (folder / "00003.png").write_text("the panel of an older version")
    own = (
        "notes.txt",
        "1.png",
        "000001.png",
        "00001-notes.png",
        "00001.png.bak",
        "00001-image.jpg",
    )
    for name in own:
        (folder / name).write_text("the user's")
    (folder / "00009.png").mkdir()  # not a file
    write_pictures(tmp_path, [make(index=2, mask=None)], 0.5)
    ours = {"00002.jpg", "00002-image.png", "00002-map.png", "00002.npz"}
    assert {path.name for path in folder.iterdir()} == {*ours, *own, "00009.png"}
    remove_pictures(tmp_path)
    assert {path.name for path in folder.iterdir()} == {*own, "00009.png"}
    remove_pictures(tmp_path / "nowhere")  # nothing to remove is no error


def test_two_writes_give_the_same_bytes(tmp_path, monkeypatch):
    clock = itertools.count(1_000_000_000, 86_400)
    monkeypatch.setattr(
        "time.time", lambda: next(clock)
    )  # a day passes between any two looks at it
    for run in ("a", "b"):
        write_pictures(tmp_path / run, [make(), make(index=8, mask=None)], 0.5)
    first = sorted((tmp_path / "a/pictures").iterdir())
    assert len(first) == 9
    for path in first:
        assert path.read_bytes() == (tmp_path / "b/pictures" / path.name).read_bytes()


def test_parts_of_another_size_are_refused():
    for wrong in (
        {"mask": disc(32)},
        {"text_map": np.zeros((32, 32))},
        {"image": np.zeros((SIDE, SIDE, 3))},
    ):
        with pytest.raises(ValueError, match="another size"):
            make(**wrong)

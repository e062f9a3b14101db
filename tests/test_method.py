"""A method with a memory branch only: tests, results and detectors have nothing of the other."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from dataset.catalog import object_info
from dataset.folder import ImageSet, list_split
from dataset.medical_few import Support
from dataset.shots import Shots
from errors import UserError
from mvfa import Detector, calibration
from mvfa.calibrated import Known, known_values
from mvfa.calibration_set import CalibrationSet, leave_one_out, shot_of_rows
from mvfa.details import measure, split_curves
from mvfa.detector_file import read_description
from mvfa.detector_making import calibrate
from mvfa.distributed import World
from mvfa.engine import build_memory, predict
from mvfa.evaluation import Maps, constants_of, evaluate
from mvfa.inputs import load_test_set
from mvfa.methods import making
from mvfa.methods.base import Method
from mvfa.methods.mvfa import Mvfa
from mvfa.options import parse
from mvfa.results import draw_pictures, write_scores
from mvfa.score_form import ScoreForm
from tests.conftest import listed_shots
from tests.detectors import SETTING
from tests.image_sets import Pictures, drawn_method, loader
from tests.methods import MemoryOnly

SIDE = 32
K = 4


class Scored:
    """An object's test split as the stub scores it."""

    def __init__(self, root, obj: str) -> None:
        self.root = root
        self.info = object_info(obj)
        self.method = MemoryOnly(SIDE, masks=self.info.masks)
        self.shots = listed_shots(root, obj, K)
        self.support = Support(Shots(self.shots.normal, []), self.info, SIDE)
        support = loader(self.method, self.support, 11)
        self.bank = build_memory(self.method, support, self.support.normal)
        self.tests = load_test_set(self.options(), self.info, World())
        self.predictions = predict(self.method, loader(self.method, self.tests, 3), self.bank)
        self.evaluation = evaluate(self.predictions)

    def options(self, *flags: object):
        argv = ["--obj", self.info.name, "--method", "patch_memory", "--img_size", SIDE, *flags]
        argv += ["--data_path", self.root / "data"]
        return parse("test_few", [str(flag) for flag in argv])


@pytest.fixture(params=["Brain", "Chest"])  # with masks and without
def scored(request, demo_root) -> Scored:
    return Scored(demo_root, request.param)


def test_predictions_hold_the_memory_branch_only(scored):
    made = scored.predictions
    assert made.logits is None
    assert made.text_scores is None
    assert made.memory_scores.shape == (len(scored.tests),)
    assert (made.distance is None) == (not scored.info.masks)
    assert made.bank_bytes == 11 * K * 16 * 3 * 4


def test_its_score_is_the_memory_score_whole(scored):
    found = scored.evaluation
    raw = scored.predictions.memory_scores
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    assert found.text_scores is None
    torch.testing.assert_close(found.scores, expected)
    torch.testing.assert_close(found.memory_scores, expected)
    assert found.image_auroc == pytest.approx(roc_auc_score(scored.tests.labels, raw))
    assert (found.pixel_auroc is None) == (not scored.info.masks)
    if scored.info.masks:
        maps = Maps(scored.predictions)
        masks = [scored.tests.mask(i).flatten() for i in range(len(scored.tests))]
        final = torch.zeros(len(masks), SIDE, SIDE)
        for block, (text, memory, fused) in maps:
            assert text is None
            assert torch.equal(memory, fused)
            final[block] = fused
        expected = roc_auc_score(torch.cat(masks), final.flatten())
        assert found.pixel_auroc == pytest.approx(expected, abs=1e-6)


def test_its_details_have_no_text_branch(scored):
    details = measure(scored.evaluation, scored.predictions, resamples=5)
    image = details["image"]
    assert image["text"] is None
    assert image["both"] == image["memory"]
    assert image["memory"]["auroc"] == pytest.approx(scored.evaluation.image_auroc)
    if scored.info.masks:
        assert details["pixel"]["text"] is None
        assert details["pixel"]["both"] == details["pixel"]["memory"]
        assert details["pixel"]["both"]["auroc"] == scored.evaluation.pixel_auroc
    else:
        assert details["pixel"] is None
    metrics, curves = split_curves(details)
    assert metrics["image"]["text"] is None
    assert curves["image"]["text"] is None


def test_its_table_has_an_empty_text_column(scored, tmp_path):
    write_scores(tmp_path, scored.options(), scored.tests, scored.evaluation)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["text_score"] for row in rows} == {""}
    assert [float(row["memory_score"]) for row in rows] == scored.evaluation.scores.tolist()
    assert [float(row["score"]) for row in rows] == scored.evaluation.scores.tolist()


def test_its_pictures_have_no_text_map(scored, tmp_path):
    options = scored.options("--pictures", 2)
    batches = loader(scored.method, scored.tests, 3)
    made = predict(scored.method, batches, scored.bank, maps=True)
    details = measure(scored.evaluation, made, resamples=0)
    arguments = (options, scored.evaluation, made, scored.tests, details)
    _, pictures = draw_pictures(tmp_path, *arguments)
    assert len(pictures) == 2
    assert all(path.stat().st_size for path in tmp_path.rglob("*.png"))


def test_constants_are_of_its_branch(scored):
    """And those of other images change no order: there is but one branch to scale."""
    constants = constants_of(scored.predictions).as_dict()
    names = {"memory_score", "memory_map"} if scored.info.masks else {"memory_score"}
    assert set(constants) == names
    records = list_split(scored.root / "data", scored.info, "valid")
    batches = loader(scored.method, ImageSet(records, SIDE), 4)
    known = known_values(predict(scored.method, batches, scored.bank))
    assert isinstance(known, Known)
    found = evaluate(scored.predictions, None, known.constants)
    assert found.image_auroc == scored.evaluation.image_auroc
    low, high = known.constants.memory_score
    raw = (scored.predictions.memory_scores - low) / (high - low)
    torch.testing.assert_close(found.factor * found.scores + found.addend, raw)


# ---------------------------------------------------------------- detectors


def detector_of(scored: Scored, weights) -> Detector:
    """Return a detector of the stub, calibrated with its shots, each left out in turn."""
    settings = replace(
        SETTING,
        object=scored.info.name,
        noun=scored.info.noun,
        masks=scored.info.masks,
        embed_dim=3,
        method="patch_memory",
        method_settings={"side": SIDE},
        weights={"file": weights.name, "sha256": "0" * 64},
    )
    detector = Detector(scored.method, scored.bank, settings)
    owners = shot_of_rows(scored.method, scored.support, K, 11, World())
    images = ImageSet(list(scored.shots.normal), SIDE)
    known = CalibrationSet(images, calibration.LEFT_OUT, scored.bank, owners)
    calibrate(detector, known, "")
    return detector


def test_a_detector_is_calibrated_by_its_branch(scored, tiny_path):
    detector = detector_of(scored, tiny_path)
    made = detector.calibration
    assert made.text is None
    assert detector.map_ranges["text"] is None
    assert len(made.normal_scores) == K
    owners = shot_of_rows(scored.method, scored.support, K, 11, World())
    images = ImageSet(list(scored.shots.normal), SIDE)
    raw = [
        float(
            scored.method.score(scored.method.features(images[i].image[None]), bank)[
                "memory_scores"
            ]
        )
        for i, bank in enumerate(leave_one_out(scored.bank, owners, K))
    ]
    assert made.memory == pytest.approx((min(raw), max(raw)))
    assert min(raw) > 1e-6  # a shot is not its own neighbour


def test_its_detector_gives_a_score_and_a_map_of_its_own(scored, tiny_path):
    """No threshold serves both: an image's score is not the maximum of its map."""
    detector = detector_of(scored, tiny_path)
    assert not detector.map_scores
    record = scored.tests.records[-1]
    result = detector(record.image)
    low, high = detector.calibration.memory
    raw = float(scored.predictions.memory_scores[-1])
    assert result.score == pytest.approx((raw - low) / (high - low), rel=1e-5)
    assert result.scored_map.shape == (SIDE, SIDE)
    values = detector.raw(detector.patch_values(scored.tests[len(scored.tests) - 1].image[None])[0])
    assert values.text_map is None
    assert values.text_score is None


def test_its_file_has_no_text_and_comes_back(scored, tiny_path, tmp_path, monkeypatch):
    path = tmp_path / "x.detector"
    made = detector_of(scored, tiny_path)
    made.settings = replace(made.settings, weights=weights_of(tiny_path))
    made.save(path)
    about = read_description(path)
    assert about["method"] == "patch_memory"
    assert about["map_ranges"]["text"] is None
    assert about["calibration"]["lo_hi"]["text"] is None

    def load(settings, tensors, _source) -> Method:
        assert "text" not in tensors
        return MemoryOnly(settings.method_settings["side"], masks=settings.masks)

    modules = {"mvfa.methods.patch_memory": SimpleNamespace(load=load)}
    monkeypatch.setattr(making, "import_module", modules.__getitem__)
    loaded = Detector.load(path, clip_path=tiny_path)
    image = scored.tests.records[0].image
    assert loaded(image).score == made(image).score
    assert json.loads(json.dumps(about["calibration"])) == made.calibration.as_dict()


def weights_of(path) -> dict[str, str]:
    from CLIP.hashing import file_hash

    return {"file": path.name, "sha256": file_hash(path)}


# ---------------------------------------------------------------- the contract


def test_what_a_method_leaves_out():
    """Nothing is trained, nothing is saved, and --compile is refused in one line."""
    method = MemoryOnly(SIDE, masks=True)
    assert method.keys == ()
    assert method.groups() == {}
    assert method.trained_parameters == 0
    assert method.state() == method.tensors() == method.settings() == {}
    with pytest.raises(UserError, match="--compile yes is not for --method patch_memory"):
        method.compile_network()


def test_a_method_without_a_bank_builds_none():
    class WithoutBank(MemoryOnly):
        bank_levels = Method.bank_levels

    method = WithoutBank(SIDE, masks=True)
    assert method.bank_levels == 0
    assert build_memory(method, None, [0]) == []


def test_a_method_that_leaves_out_a_part_of_the_contract_cannot_be_made():
    with pytest.raises(TypeError, match="device, embed_dim, feature_shape, features, score"):
        Method(ScoreForm("mean", "sum"), SIDE, masks=True, weights=None)


def test_what_is_not_trained_has_no_loss():
    with pytest.raises(TypeError, match="nothing of patch_memory is trained"):
        MemoryOnly(SIDE, masks=True).loss(torch.zeros(1), torch.zeros(1), None, ["Brain"])


def test_a_method_scores_what_it_is_aimed_at(tiny):
    method = drawn_method(tiny)
    features = method.features(Pictures(2).images)
    brain = method.score(features, None)["logits"]
    assert method.aim(SimpleNamespace(noun="Chest", masks=True)) is method
    assert not torch.equal(method.score(features, None)["logits"], brain)
    assert "logits" not in method.aim(SimpleNamespace(noun="Chest", masks=False)).score(
        features, None
    )


def test_mvfa_counts_what_it_trains_and_the_rows_of_a_bank(tiny):
    method: Mvfa = drawn_method(tiny)
    values = [v for group in method.state().values() for v in group.values()]
    assert method.trained_parameters == sum(v.numel() for v in values)
    images = Pictures(2).images
    (rows,) = {len(level) for level in method.bank(method.features(images))}
    assert rows == sum(method.bank_rows(image) for image in images)

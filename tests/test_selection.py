"""Three rules for the moment that a checkpoint is taken from."""

import json

import pytest
import torch

from mvfa.evaluation import Evaluation
from mvfa.selection import Aurocs, Selection, mean


def test_each_rule_chooses_its_moment():
    """The first of equals wins."""
    measured = ((1, 0.8, 0.6), (2, 0.9, 0.5), (3, 0.9, 0.6), (4, 0.6, 0.7))
    kept = {}
    for rule in ("test", "valid", "last"):
        selection = Selection(rule)
        kept[rule] = []
        for epoch, test, valid in measured:
            chosen = [selection.start(epoch, last=epoch == 4)]
            chosen.append(selection.add_valid(Aurocs(valid, None)))
            chosen.append(selection.add_test(Aurocs(test, test)))
            if any(chosen):
                kept[rule].append(epoch)
        assert selection.as_dict()["best_epoch"] == kept[rule][-1]
        if rule == "test":
            selections = selection.as_dict()["selections"]
    assert kept == {"test": [1, 2], "valid": [1, 4], "last": [4]}
    epochs = {name: moment["epoch"] for name, moment in selections.items()}
    assert epochs == {"test": 2, "valid": 4, "last": 4}
    assert selections["test"]["image_auroc"] == 0.9


def test_in_zero_shot_the_last_of_equals_replaces_the_others():
    selection = Selection("test", equal_replaces=True)
    for epoch, total in ((0.0, 0.7), (0.2, 0.9), (0.4, 0.9), (0.6, 0.8)):
        selection.start(epoch)
        selection.add_test(Aurocs(total, None))
        selection.add_valid(Aurocs(total, None))
    epochs = {rule: moment["epoch"] for rule, moment in selection.chosen.items()}
    assert epochs == {"test": 0.4, "valid": 0.2}


class FakeKeeper:
    """Notes what is kept, saved and restored."""

    def __init__(self) -> None:
        self.evaluation = None
        self.calls = []

    def keep(self, epoch, evaluation=None) -> None:
        self.evaluation = evaluation
        self.calls.append(("keep", epoch, evaluation is not None))

    def save(self) -> None:
        self.calls.append(("save",))

    def restore(self) -> None:
        self.calls.append(("restore",))


def evaluation(image_auroc: float, pixel_auroc: float | None = None) -> Evaluation:
    scores = torch.zeros(2)
    return Evaluation(scores, scores, None, image_auroc, pixel_auroc, pixel_auroc and 0.0)


def test_a_rule_is_silent_where_it_may_not_choose_or_was_not_tested():
    selection = Selection("valid")
    selection.start(1)
    selection.add_valid(Aurocs(0.9, 0.9))
    selection.start(2, last=True)
    selection.add_valid(Aurocs(0.8, 0.9))
    assert not selection.add_test(Aurocs(0.5, None), oracle=False)
    assert list(selection.as_dict()["selections"]) == ["last"]
    keeper = FakeKeeper()
    selection.finish(keeper, lambda: evaluation(0.75))
    assert keeper.calls == [("save",), ("restore",)]
    assert keeper.evaluation.image_auroc == 0.75
    assert selection.as_dict()["selections"]["valid"]["image_auroc"] == 0.75
    assert selection.as_dict()["best_epoch"] == 1


def test_the_end_of_a_zero_shot_training_is_no_choice_of_the_oracle():
    selection = Selection("test")
    selection.start(0.0)
    assert selection.add_test(Aurocs(0.5, None))
    assert selection.is_best
    selection.start(1.0, last=True)
    assert not selection.add_test(Aurocs(0.9, None), oracle=False)
    assert not selection.is_best
    assert selection.as_dict()["best_epoch"] == 0.0


def look(selection: Selection, keeper: FakeKeeper, values, tests: list[int]) -> None:
    """Look once an epoch at AUROCs of test and valid; note in `tests` when the test is scored."""
    for epoch, (test, valid) in enumerate(values, start=1):

        def score(epoch=epoch, test=test) -> Evaluation:
            tests.append(epoch)
            return evaluation(test)

        last = epoch == len(values)
        if not selection.skips(last=last):
            selection.assess(epoch, keeper, score, [lambda v=valid: evaluation(v)], last=last)


def test_only_the_oracle_tests_every_epoch():
    values = [(0.8, 0.6), (0.9, 0.7), (0.7, 0.5)]
    tests = {rule: [] for rule in ("test", "valid", "last")}
    keepers = {rule: FakeKeeper() for rule in tests}
    for rule, moments in tests.items():
        look(Selection(rule), keepers[rule], values, moments)
    assert tests == {"test": [1, 2, 3], "valid": [3], "last": [3]}
    assert keepers["test"].calls == [("keep", 1, True), ("keep", 2, True)]
    assert keepers["valid"].calls == [("keep", 1, False), ("keep", 2, False), ("save",)]
    assert keepers["last"].calls == [("keep", 3, False), ("save",)]
    assert keepers["valid"].evaluation is None  # to be tested by `finish`
    assert keepers["last"].evaluation.image_auroc == 0.7


def test_adapters_are_saved_before_a_test_that_may_fail():
    """Those that are chosen without the test set, at the end of the training."""
    keeper = FakeKeeper()

    def fail() -> Evaluation:
        raise OSError

    for rule in ("valid", "last"):
        try:
            Selection(rule).assess(1, keeper, fail, [lambda: evaluation(0.5)], last=True)
        except OSError:
            continue
        raise AssertionError
    assert keeper.calls == [("keep", 1, False), ("save",)] * 2
    Selection("valid").assess(1, keeper, fail, [lambda: evaluation(0.5)])
    assert keeper.calls[4:] == [("keep", 1, False)]  # the training goes on


@pytest.mark.parametrize("rule", ["test", "valid"])
@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_a_selection_goes_on_from_its_state(rule, stopped):
    """After any moment, as if it had not been stopped; the state goes through a JSON file."""
    values = [(0.8, 0.6), (0.9, 0.5), (0.9, 0.7), (0.6, 0.7)]

    def measure(selection: Selection, epochs) -> None:
        for epoch in epochs:
            test, valid = values[epoch]
            selection.start(epoch, last=epoch == 3)
            selection.add_valid(Aurocs(valid, 0.1 + 0.2))
            selection.add_test(Aurocs(test, test))

    whole = Selection(rule)
    measure(whole, range(4))
    first = Selection(rule)
    measure(first, range(stopped))
    second = Selection(rule)
    second.restore_state(json.loads(json.dumps(first.state())))
    assert second.is_best == first.is_best
    measure(second, range(stopped, 4))
    assert second.as_dict() == whole.as_dict()


def test_the_mean_counts_pixels_where_there_are_masks():
    assert mean([Aurocs(0.5, None), Aurocs(0.7, 0.9)]) == Aurocs(0.6, 0.9)
    assert mean([Aurocs(0.5, None)]).total == 0.5

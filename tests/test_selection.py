"""Three rules for the moment a checkpoint is taken from."""

from mvfa.selection import Figures, Selection, mean


def test_each_rule_chooses_its_moment():
    chosen, found = Selection(), []
    for epoch, test, valid in ((1, 0.8, 0.6), (2, 0.9, 0.5), (3, 0.9, 0.6), (4, 0.6, 0.7)):
        chosen.moment(epoch, last=epoch == 4)
        found.append((chosen.validated(Figures(valid, None)), chosen.tested(Figures(test, test))))
    assert found == [
        (True, True),
        (False, True),
        (False, False),
        (True, False),
    ]  # the first of equals wins
    table = chosen.table(("test", "valid", "last"))
    assert {rule: entry["epoch"] for rule, entry in table.items()} == {
        "test": 2,
        "valid": 4,
        "last": 4,
    }
    assert table["test"]["image_auroc"] == 0.9


def test_in_zero_shot_the_last_of_equals_replaces_the_others():
    chosen = Selection(equal_replaces=True)
    for epoch, worth in ((0.0, 0.7), (0.2, 0.9), (0.4, 0.9), (0.6, 0.8)):
        chosen.moment(epoch)
        chosen.tested(Figures(worth, None))
        chosen.validated(Figures(worth, None))
    assert {rule: entry["epoch"] for rule, entry in chosen.chosen.items()} == {
        "test": 0.4,
        "valid": 0.2,
    }


def test_a_rule_is_silent_where_it_may_not_choose_or_was_not_tested():
    chosen = Selection()
    chosen.moment(1)
    chosen.validated(Figures(0.9, 0.9))
    chosen.moment(2, last=True)
    chosen.validated(Figures(0.8, 0.9))
    assert not chosen.tested(Figures(0.5, None), oracle=False)
    assert list(chosen.table(("test", "valid", "last"))) == ["last"]
    chosen.complete("valid", Figures(0.75, None))
    assert chosen.table(("valid",))["valid"]["image_auroc"] == 0.75


def test_the_mean_counts_pixels_where_there_are_masks():
    assert mean([Figures(0.5, None), Figures(0.7, 0.9)]) == Figures(0.6, 0.9)
    assert mean([Figures(0.5, None)]).worth == 0.5

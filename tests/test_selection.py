"""Three rules for the moment a checkpoint is taken from."""

from selection import Figures, Selection, mean


def test_each_rule_chooses_its_moment():
    chosen = Selection()
    assert chosen.note(1, Figures(0.7, 0.8), Figures(0.6, None)) == {"test", "valid"}
    assert chosen.note(2, Figures(0.9, 0.9), Figures(0.5, None)) == {"test"}
    assert chosen.note(3, Figures(0.9, 0.9), Figures(0.6, None)) == set()  # the first of equals wins
    assert chosen.note(4, Figures(0.6, 0.6), Figures(0.7, None), last=True) == {"valid", "last"}
    table = chosen.table(("test", "valid", "last"))
    assert {rule: entry["epoch"] for rule, entry in table.items()} == {"test": 2, "valid": 4, "last": 4}
    assert table["test"]["image_auroc"] == 0.9


def test_a_rule_is_silent_where_it_may_not_choose_or_was_not_tested():
    chosen = Selection()
    chosen.note(1, None, Figures(0.9, 0.9))
    chosen.note(2, Figures(0.5, None), Figures(0.8, 0.9), last=True, oracle=False)
    assert list(chosen.table(("test", "valid", "last"))) == ["last"]
    chosen.complete("valid", Figures(0.75, None))
    assert chosen.table(("valid",))["valid"]["image_auroc"] == 0.75


def test_the_mean_counts_pixels_where_there_are_masks():
    assert mean([Figures(0.5, None), Figures(0.7, 0.9)]) == Figures(0.6, 0.9)
    assert mean([Figures(0.5, None)]).worth == 0.5

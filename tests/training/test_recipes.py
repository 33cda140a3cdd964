"""Recipes: where their stages end."""

import pytest

from graphscale import GraphScaleError
from graphscale.training.recipes import RECIPES, recipe


def test_late_comes_to_the_target_after_eight_of_ten_epochs() -> None:
    assert recipe("late").ends(10)[-2:] == [8, 10]
    assert recipe("late").ends(30)[-2:] == [24, 30]


def test_paper_grows_one_epoch_before_the_first_drop() -> None:
    assert recipe("paper").ends(55, milestones=(18, 29, 43, 52)) == [17, 55]


def test_paper_needs_a_drop() -> None:
    with pytest.raises(GraphScaleError, match="--schedule steps"):
        recipe("paper").ends(10)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("epochs", [5, 6, 7, 10, 31, 90])
def test_every_stage_has_an_epoch_and_the_last_ends_the_training(name: str, epochs: int) -> None:
    ends = recipe(name).ends(epochs, milestones=(max(2, epochs // 2),))
    assert ends[-1] == epochs
    assert all(later > earlier for earlier, later in zip([0, *ends], ends))


def test_fewer_epochs_than_stages_is_an_error() -> None:
    with pytest.raises(GraphScaleError, match="more epochs"):
        recipe("progressive").ends(4)


def test_unknown_recipe_names_those_that_there_are() -> None:
    with pytest.raises(GraphScaleError, match="late"):
        recipe("early")

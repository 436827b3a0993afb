import re

import pytest

from dhm.registry import Registry, unknown


@pytest.fixture
def fruit() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.register("pear", 1)
    registry.register("apple", 2)
    return registry


def test_names_come_in_the_order_of_registration(fruit: Registry[int]) -> None:
    assert fruit.names() == ("pear", "apple")
    assert list(fruit) == ["pear", "apple"]


def test_a_value_is_found_by_its_name(fruit: Registry[int]) -> None:
    assert fruit.get("apple") == 2
    assert "apple" in fruit
    assert "fig" not in fruit


def test_registering_returns_the_value_so_that_it_can_be_kept(fruit: Registry[int]) -> None:
    assert fruit.register("fig", 3) == 3


def test_a_name_that_is_taken_is_refused_and_the_first_value_stays(fruit: Registry[int]) -> None:
    with pytest.raises(ValueError, match=r"fruit 'pear' is registered already; registered: pear, apple"):
        fruit.register("pear", 9)
    assert fruit.get("pear") == 1


def test_an_unknown_name_suggests_the_nearest_and_lists_all(fruit: Registry[int]) -> None:
    message = "unknown fruit 'aple'. Did you mean 'apple'? Choose one of: apple, pear"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fruit.get("aple")


def test_nothing_is_suggested_where_nothing_is_near(fruit: Registry[int]) -> None:
    with pytest.raises(ValueError, match=r"^unknown fruit 'xyz'\. Choose one of: apple, pear$"):
        fruit.get("xyz")


def test_no_choices_at_all_are_said_as_such() -> None:
    assert str(unknown("fruit", "pear", ())) == "unknown fruit 'pear'. Choose one of: (none)"

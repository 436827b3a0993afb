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


def test_members_of_a_family_are_made_once_when_asked_for_and_not_listed(fruit: Registry[int]) -> None:
    made = []
    fruit.register_family("dried", lambda: ("plum", "raisin"), lambda member: made.append(member) or len(member))
    assert "dried/plum" in fruit
    assert "dried/fig" not in fruit
    assert made == []
    assert (fruit.get("dried/plum"), fruit.get("dried/plum")) == (4, 4)
    assert made == ["plum"]
    assert fruit.names() == tuple(fruit) == ("pear", "apple")


def test_an_unknown_member_suggests_and_lists_its_family_and_others_only_name_the_family(fruit: Registry[int]) -> None:
    fruit.register_family("dried", lambda: ("plum", "raisin"), len)
    message = "unknown fruit 'dried/plumb'. Did you mean 'dried/plum'? Choose one of: dried/plum, dried/raisin"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fruit.get("dried/plumb")
    message = "unknown fruit 'aple'. Did you mean 'apple'? Choose one of: apple, dried/NAME, pear"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fruit.get("aple")
    with pytest.raises(ValueError, match=r"^unknown fruit 'tinned/plum'\. .*apple, dried/NAME, pear$"):
        fruit.get("tinned/plum")

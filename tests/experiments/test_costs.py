"""What a network costs is counted once, and never taken from what something else counted."""

import dataclasses
import json
from pathlib import Path

import pytest

from dhm import cost
from dhm.data import DataSet, load
from dhm.recipe import DataSpec
from experiments import costs
from experiments.benchmarks import BENCHMARKS
from experiments.stores import Stores

RECIPE = BENCHMARKS.get("digits").base()


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DataSpec(name="digits"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that were counted."""
    found: list[str] = []
    monkeypatch.setattr(
        costs, "measure", lambda recipe, **how: found.append(recipe.arch) or cost.measure(recipe, **how)
    )
    costs._kept.cache_clear()
    return found


def anew(stores: Stores, data: DataSet) -> cost.Cost:
    """As another process would find it."""
    costs._kept.cache_clear()
    return costs.cost_of(RECIPE, data, stores)


def test_a_network_is_counted_once_for_all_recipes_and_processes(
    digits: DataSet, counted: list[str], tmp_path: Path
) -> None:
    stores = Stores(root=tmp_path)
    expected = cost.measure(RECIPE, channels=1, size=(8, 8), num_classes=10)
    other = dataclasses.replace(RECIPE, epochs=3, mimic=None)
    assert [costs.cost_of(recipe, digits, stores) for recipe in (RECIPE, other)] == [expected] * 2
    assert anew(stores, digits) == expected
    assert counted == ["resnet8"]
    assert costs.cost_of(dataclasses.replace(RECIPE, branches=(), mimic=None), digits, stores).flops < expected.flops
    assert anew(stores, load(DataSpec(name="digits", image_size=16))).flops > expected.flops
    assert counted == ["resnet8"] * 3


@pytest.mark.parametrize(
    "content", ["", "[]", '{"costs": {}}', '{"made_by": "another", "costs": {"KEY": {"flops": 1}}}']
)
def test_what_other_code_counted_or_nobody_can_read_is_counted_again(
    digits: DataSet, counted: list[str], tmp_path: Path, content: str
) -> None:
    stores = Stores(root=tmp_path)
    found = costs.cost_of(RECIPE, digits, stores)
    (key,) = json.loads((tmp_path / costs.FILE).read_text())["costs"]
    (tmp_path / costs.FILE).write_text(content.replace("KEY", key))
    assert anew(stores, digits) == found
    assert len(counted) == 2
    assert anew(stores, digits) == found
    assert len(counted) == 2, "and is kept again"


def test_where_there_is_no_store_none_is_made(digits: DataSet, counted: list[str], tmp_path: Path) -> None:
    stores = Stores(root=tmp_path / "store")
    assert costs.cost_of(RECIPE, digits, stores) == costs.cost_of(RECIPE, digits, stores)
    assert counted == ["resnet8"] and not list(tmp_path.iterdir())

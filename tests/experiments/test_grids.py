"""Every grid trains: each of its variants on `digits`, for one short epoch."""

import math

import pytest

import experiments.grids  # noqa: F401  the registry is filled by importing
from dhm.data import DataSet, load
from dhm.engine import fit
from dhm.fields import replace_at
from experiments.benchmarks import BENCHMARKS
from experiments.grid import GRIDS

DIGITS = BENCHMARKS.get("digits")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DIGITS.data)


@pytest.mark.parametrize("name", GRIDS.names())
def test_every_variant_of_every_grid_trains(name: str, digits: DataSet) -> None:
    for variant in GRIDS.get(name).variants(DIGITS, overrides={"epochs": 1, "optim.batch_size": 20}):
        recipe = variant.recipe
        if recipe.data.train_size > 100:
            recipe = replace_at(recipe, "data.train_size", 100)
        result = fit(recipe, 0, data=digits)
        assert math.isfinite(result.final["top1_error"]), variant.name
        assert set(result.final) >= {"top1_error", *(f"top1_error/{head}" for head in recipe.heads[1:])}

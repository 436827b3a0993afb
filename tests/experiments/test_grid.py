import json
from pathlib import Path

import pytest

import experiments.grids  # noqa: F401
from dhm.fields import from_dict, replace_at, to_dict
from dhm.recipe import Recipe
from experiments.benchmarks import BENCHMARKS
from experiments.grid import GRIDS, Cell, Grid, Variant, recipe_id
from experiments.stores import Stores
from experiments.study import Request, make_plan

DIGITS = BENCHMARKS.get("digits")
FROZEN = Path(__file__).with_name("frozen_identities.json")


def grid(**changes: object) -> Grid:
    fields = {
        "name": "made_up",
        "title": "Made up",
        "question": "Which?",
        "factors": {"method": ["plain", "dsl", "dhm"], "mimic.alpha": [0.5, 1.0]},
        "baseline": {"method": "plain"},
    }
    return Grid(**{**fields, **changes})


def by_name(variants: list[Variant]) -> dict[str, Variant]:
    assert len({variant.name for variant in variants}) == len(variants), "names are unique"
    return {variant.name: variant for variant in variants}


@pytest.mark.parametrize("benchmark", BENCHMARKS.names())
@pytest.mark.parametrize("name", GRIDS.names())
def test_every_grid_on_every_benchmark(name: str, benchmark: str) -> None:
    variants = by_name(GRIDS.get(name).variants(BENCHMARKS.get(benchmark)))
    assert len({variant.recipe for variant in variants.values()}) == len(variants)
    baselines = [variant for variant in variants.values() if variant.baseline is None]
    assert baselines
    for variant in variants.values():
        assert variant.baseline is None or variants[variant.baseline].baseline is None
        assert from_dict(Recipe, json.loads(json.dumps(to_dict(variant.recipe)))) == variant.recipe


def test_the_default_grid_has_seven_variants() -> None:
    variants = GRIDS.get("branch_positions").variants(DIGITS)
    assert [variant.name for variant in variants] == [
        "plain",
        "dsl at 1",
        "dsl at 2",
        "dsl at 1+2",
        "dhm at 1",
        "dhm at 2",
        "dhm at 1+2",
    ]
    assert [[branch.after for branch in variant.recipe.branches] for variant in variants] == [
        [], [1], [2], [1, 2], [1], [2], [1, 2],
    ]  # fmt: skip


def test_a_factor_that_makes_no_difference_has_no_level() -> None:
    variants = by_name(grid().variants(DIGITS))
    assert set(variants) == {"plain alpha", "plain", "dsl", "dhm alpha 0.5", "dhm alpha 1"} - {"plain alpha"}
    assert variants["dsl"].factors == {"method": "dsl", "mimic.alpha": None}
    assert variants["dhm alpha 0.5"].recipe.mimic.alpha == 0.5


def test_an_arm_is_compared_with_the_baseline_that_shares_its_other_levels() -> None:
    variants = by_name(GRIDS.get("depths").variants(DIGITS))
    assert variants["resnet14 dhm branches x2"].baseline == "resnet14 plain"
    assert variants["resnet8 dsl branches x1"].baseline == "resnet8 plain"


def test_points_can_be_excluded() -> None:
    names = by_name(grid(exclude=[{"method": "dhm", "mimic.alpha": 1.0}]).variants(DIGITS))
    assert "dhm alpha 1" not in names
    assert "dhm alpha 0.5" in names


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"factors": {"method": ["plain", "dsl"], "mimic.alpha": [0.5, 1.0]}}, ["mimic.alpha=0.5", "mimic.alpha=1.0"]),
        ({"factors": {"method": ["plain", "dhm"], "optim.lr": [1, 0.1, 1.0]}}, ["optim.lr=1 ", "'plain lr 1'"]),
        ({"factors": {"method": ["plain", "dhm"], "positions": ["1+2", "2+1"]}}, ["'plain at 1+2' and 'plain at 2+1'"]),
    ],
)
def test_levels_that_change_nothing_are_refused_and_variants_named(asked: dict, words: list[str]) -> None:
    with pytest.raises(ValueError, match="are one recipe") as caught:
        grid(**asked).variants(DIGITS)
    for word in words:
        assert word in str(caught.value)


def test_a_level_may_be_without_effect_for_some_arms() -> None:
    made = grid(factors={"method": ["plain", "dhm"], "branch_depth": [1, 2]}).variants(DIGITS)
    assert [variant.name for variant in made] == ["plain", "dhm branches x1", "dhm branches x2"]


def test_base_and_overrides_change_every_variant_and_overrides_win() -> None:
    made = grid(base={"epochs": 7, "optim.lr": 0.3}).variants(DIGITS, overrides={"epochs": 9})
    assert {(variant.recipe.epochs, variant.recipe.optim.lr) for variant in made} == {(9, 0.3)}


def test_an_override_for_mimicking_changes_no_other_arm() -> None:
    methods = GRIDS.get("methods")
    before = by_name(methods.variants(DIGITS))
    after = by_name(methods.variants(DIGITS, overrides={"mimic.alpha": 0.25}))
    assert before["plain"].recipe == after["plain"].recipe
    assert before["dsl"].recipe == after["dsl"].recipe
    assert before["dhm"].recipe != after["dhm"].recipe


def test_each_backbone_begins_from_its_own_recipe() -> None:
    made = grid(factors={"arch": ["resnet110", "wrn_28_10"], "method": ["plain", "dhm"]}).variants(
        BENCHMARKS.get("cifar100")
    )
    recipes = {variant.name: variant.recipe for variant in made}
    assert recipes["resnet110 plain"].epochs == 164
    assert recipes["wrn_28_10 plain"].epochs == 200
    assert recipes["wrn_28_10 plain"].dropout == 0.3
    released = grid(factors={"arch": ["wrn_28_10"], "method": ["plain"]}).variants(
        BENCHMARKS.get("cifar100"), recipe="released"
    )
    assert released[0].recipe.dropout == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"levels": {"positions": ["1"]}}, ["factor of grid made_up", "positions", "mimic.alpha"]),
        ({"levels": {"method": []}}, ["method", "no levels"]),
        ({"levels": {"method": ["dhn"]}}, ["method", "dhn", "Did you mean 'dhm'"]),
        ({"levels": {"method": ["dsl"]}}, ["no point with its baseline's levels", "method=plain"]),
        ({"overrides": {"mimic.alpha": 2.0}}, ["mimic.alpha is a factor", "factors.mimic.alpha=[...]"]),
        ({"overrides": {"optim.lrr": 2.0}}, ["optim.lrr", "Did you mean 'optim.lr'"]),
        ({"overrides": {"epochs": "many"}}, ["epochs", "whole number", "many"]),
        ({"overrides": {"arch": "resnet33"}}, ["resnet33", "resnet32"]),
        ({"recipe": "papers"}, ["recipe", "papers", "documented"]),
    ],
)
def test_mistakes_are_named(asked: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        grid().variants(DIGITS, **asked)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("level", "words"),
    [("3", ["stage 3", "1, 2"]), ("1+9", ["stage 9"]), ("1+1", ["1+1"]), ("one", ["one", "'1+2'"]), ("", ["1+2"])],
)
def test_nodes_that_do_not_exist_are_refused(level: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        GRIDS.get("branch_positions").variants(DIGITS, levels={"positions": [level]})
    for word in words:
        assert word in str(caught.value)


def test_identity_depends_on_recipe_data_and_seed_and_on_nothing_else() -> None:
    recipe = DIGITS.base()
    variant = Variant(name="a", recipe=recipe, factors={}, baseline=None)
    cell = Cell(variant=variant, seed=3, fingerprint="f")
    renamed = Cell(variant=Variant(name="b", recipe=recipe, factors={"x": 1}, baseline="a"), seed=3, fingerprint="f")
    assert cell.cell_id == renamed.cell_id
    assert cell.cell_id.endswith("-s3")
    others = {
        cell.cell_id,
        Cell(variant=variant, seed=4, fingerprint="f").cell_id,
        Cell(variant=variant, seed=3, fingerprint="g").cell_id,
        recipe_id(replace_at(recipe, "optim.lr", 0.2), "f"),
        recipe_id(replace_at(recipe, "mimic.alpha", 0.2), "f"),
    }
    assert len(others) == 5


def agree(frozen: object, now: object) -> bool:
    """Whether what was frozen stands as it was; fields that came later do not count."""
    if isinstance(frozen, dict) and isinstance(now, dict):
        return all(name in now and agree(value, now[name]) for name, value in frozen.items())
    if isinstance(frozen, list) and isinstance(now, list):
        return len(frozen) == len(now) and all(map(agree, frozen, now))
    return frozen == now


def test_identities_are_frozen() -> None:
    """A recipe that was recorded keeps its identity for ever.

    If this fails a default or the way of hashing has changed, and every recorded cell would be trained again. Give the
    new field a default that changes nothing; a changed default of a benchmark or grid is a new entry in the file, and
    the old one is `superseded`.
    """
    for entry in json.loads(FROZEN.read_text()):
        recipe = from_dict(Recipe, entry["recipe"])
        assert recipe_id(recipe, entry["data"]) == entry["recipe_id"], entry["what"]
        assert agree(entry["recipe"], to_dict(recipe)), f"{entry['what']}: a default has changed"


def test_what_is_frozen_is_what_the_grids_make() -> None:
    for entry in json.loads(FROZEN.read_text()):
        place, variant = entry["what"].split(": ", 1)
        benchmark, grid = place.split("/")
        made = {v.name: to_dict(v.recipe) for v in GRIDS.get(grid).variants(BENCHMARKS.get(benchmark))}
        assert entry.get("superseded") or agree(entry["recipe"], made[variant]), entry["what"]


def test_an_arm_without_a_baseline_of_its_own_is_refused() -> None:
    factors = {"method": ["plain", "dhm"], "optim.lr": [0.1, 0.2]}
    whole = grid(factors=factors)
    assert by_name(whole.variants(DIGITS))["dhm lr 0.2"].baseline == "plain lr 0.2"
    lacking = grid(factors=factors, exclude=[{"method": "plain", "optim.lr": 0.2}])
    with pytest.raises(ValueError, match=r"'dhm lr 0\.2' has no baseline of its own, and 'plain lr 0\.1' differs in"):
        lacking.variants(DIGITS)
    one = grid(factors=factors, baseline={"method": "plain", "optim.lr": 0.1})
    assert by_name(one.variants(DIGITS))["dhm lr 0.2"].baseline == "plain lr 0.1", "where the grid says so"


def test_a_position_that_is_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2\.10 is 2\.1.*\['2\.1'\]"):
        GRIDS.get("branch_positions").variants(DIGITS, levels={"positions": [2.10]})


@pytest.mark.parametrize("words", [{"overrides": {"optim.lr": 0.3}}, {"recipe": "released"}])
def test_plans_of_several_backbones_are_told_apart_by_all_that_was_said(words: dict, tmp_path: Path) -> None:
    archs = ["resnet8", "wrn_10_1"]

    def plan_id(**more: object) -> str:
        asked = Request(grid="architectures", levels={"arch": archs}, **more)
        return make_plan(asked, Stores(root=tmp_path / "store"))[0].plan_id

    assert plan_id() == plan_id(seeds=2) != plan_id(**words)

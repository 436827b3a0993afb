import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhm.fields import from_dict, identity, replace_at, to_dict
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe, TermSpec

DIGITS = DataSpec(name="digits")
PLAIN = Recipe(arch="resnet8", epochs=3, data=DIGITS)
BRANCHES = (BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,), width=2))
DHM = dataclasses.replace(PLAIN, branches=BRANCHES, mimic=MimicSpec())

numbers = st.floats(0.001, 1000, allow_nan=False)
shares = st.floats(0, 0.99, allow_nan=False)
whole = st.integers(1, 400)
branch_specs = st.builds(
    BranchSpec, after=st.integers(1, 5), blocks=st.lists(whole, min_size=1, max_size=4).map(tuple), width=numbers
)
optim_specs = st.builds(
    OptimSpec,
    lr=numbers,
    momentum=st.floats(0.01, 0.99),
    nesterov=st.booleans(),
    milestones=st.lists(whole).map(tuple),
    schedule=st.sampled_from(["constant", "multistep", "step", "cosine", "linear"]),
    warmup=st.sampled_from(["linear", "constant"]),
    warmup_epochs=shares,
)
data_specs = st.builds(
    DataSpec,
    name=st.sampled_from(["digits", "cifar100"]),
    train_size=whole,
    val_fraction=shares,
    flip=st.booleans(),
    mean=st.just((0.5, 0.25)),
    std=st.tuples(numbers, numbers),
)
recipes = st.builds(
    Recipe,
    arch=st.text(),
    epochs=whole,
    data=data_specs,
    optim=optim_specs | st.just(OptimSpec()),
    branches=st.lists(branch_specs, min_size=1, max_size=4).map(tuple),
    mimic=st.none() | st.just(MimicSpec()) | st.builds(MimicSpec, alpha=numbers, temperature=numbers, smoothing=shares),
    terms=st.lists(st.builds(TermSpec, name=st.text(), weight=numbers), max_size=2).map(tuple),
    dropout=shares,
    precision=st.sampled_from(["float32", "bf16"]),
    tf32=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_a_recipe_survives_json_in_full_and_as_its_identity(recipe: Recipe) -> None:
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe
    brief = identity(recipe)
    assert json.loads(json.dumps(brief)) == brief
    assert from_dict(Recipe, brief) == recipe
    assert identity(from_dict(Recipe, brief)) == brief


def test_identity_drops_what_is_as_by_default() -> None:
    assert identity(PLAIN) == {"arch": "resnet8", "epochs": 3, "data": {"name": "digits"}}
    assert identity(DHM) == {
        "arch": "resnet8",
        "epochs": 3,
        "data": {"name": "digits"},
        "branches": [{"after": 1, "blocks": [1, 1]}, {"after": 2, "blocks": [1], "width": 2.0}],
        "mimic": {},
    }
    assert identity(replace_at(PLAIN, "optim.lr", 0.2))["optim"] == {"lr": 0.2}
    assert identity(replace_at(PLAIN, "optim.lr", 0.1)) == identity(PLAIN)


def test_identity_tells_mimicking_with_defaults_from_none() -> None:
    assert identity(dataclasses.replace(DHM, mimic=None)) != identity(DHM)


def test_a_new_field_with_a_default_leaves_identities_as_they_were() -> None:
    later = dataclasses.make_dataclass(
        "Later", [("ema", float, dataclasses.field(default=0.0))], bases=(Recipe,), frozen=True, kw_only=True
    )
    fields = {field.name: getattr(DHM, field.name) for field in dataclasses.fields(DHM)}
    assert identity(later(**fields)) == identity(DHM)
    assert identity(later(**fields, ema=0.9)) == {**identity(DHM), "ema": 0.9}


def test_defaults_are_those_of_the_released_code() -> None:
    assert to_dict(OptimSpec()) == {
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "schedule": "multistep",
        "milestones": [],
        "gamma": 0.1,
        "step_size": 30,
        "warmup_epochs": 0.0,
        "warmup": "linear",
        "warmup_lr": 0.0,
    }
    assert to_dict(MimicSpec()) == {
        "alpha": 1.0,
        "temperature": 1.0,
        "smoothing": 1e-8,
        "pairs": "all",
        "listed": [],
        "alpha_warmup": 0.0,
        "stop_gradient": True,
        "random_stop": False,
    }
    assert (DIGITS.pad, DIGITS.flip, PLAIN.dropout, PLAIN.precision) == (4, True, 0.0, "float32")


def test_values_are_converted_so_that_equal_recipes_are_equal() -> None:
    loose: Any = {"after": 2.0, "blocks": [3.0], "width": 2}
    spec = BranchSpec(**loose)
    assert spec == BranchSpec(after=2, blocks=(3,), width=2.0)
    assert [type(value) for value in (spec.after, spec.blocks, spec.blocks[0], spec.width)] == [int, tuple, int, float]
    assert hash(spec) == hash(BranchSpec(after=2, blocks=(3,), width=2.0))
    nested: Any = {"branches": [loose], "data": {"name": "digits"}}
    assert Recipe(arch="resnet8", epochs=1, **nested).branches == (spec,)


def test_branches_are_kept_in_the_order_of_their_nodes() -> None:
    assert dataclasses.replace(DHM, branches=BRANCHES[::-1]) == DHM
    assert dataclasses.replace(PLAIN, branches=BRANCHES[::-1]).branches == BRANCHES


def test_heads_are_named_by_their_nodes() -> None:
    at_one = [BranchSpec(after=1, blocks=(1, depth)) for depth in (1, 2, 3)]
    several = dataclasses.replace(PLAIN, branches=(BRANCHES[1], *at_one))
    assert several.heads == ("main", "side1", "side1b", "side1c", "side2")
    assert [branch.blocks for branch in several.branches] == [(1, 1), (1, 2), (1, 3), (1,)]
    assert PLAIN.heads == ("main",)


def test_the_method_follows_from_the_fields() -> None:
    dsl = dataclasses.replace(DHM, mimic=None)
    assert [recipe.method for recipe in (PLAIN, dsl, DHM)] == ["plain", "dsl", "dhm"]
    assert replace_at(DHM, "mimic.alpha", 0).method == "dhm"


def test_recipes_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.epochs = 4
    positional: Any = BranchSpec
    with pytest.raises(TypeError):
        positional(1, (1,))


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (BranchSpec, {"after": 0, "blocks": (1,)}, "branch after=0: nodes are numbered from 1"),
        (BranchSpec, {"after": 1, "blocks": ()}, "branch blocks=[]: every stage of a branch has at least one block"),
        (BranchSpec, {"after": 1, "blocks": (2, 0)}, "branch blocks=[2, 0]: every stage"),
        (BranchSpec, {"after": 1, "blocks": (1,), "width": 0}, "branch width=0.0: must be above 0"),
        (BranchSpec, {"after": 1, "blocks": "11"}, "blocks: expected a list, got '11'"),
        (BranchSpec, {"after": 1, "blocks": 3}, "blocks: expected a list, got 3"),
        (BranchSpec, {"after": 1, "blocks": (1, 1.5)}, "blocks[1]: expected a whole number, got 1.5"),
        (BranchSpec, {"after": True, "blocks": (1,)}, "after: expected a whole number, got True"),
        (MimicSpec, {"alpha": -1}, "mimic.alpha=-1.0: must not be negative"),
        (MimicSpec, {"alpha": "one"}, "alpha: expected a number, got 'one'"),
        (MimicSpec, {"alpha": float("nan")}, "alpha: expected a number, got nan"),
        (MimicSpec, {"temperature": 0}, "mimic.temperature=0.0: must be above 0"),
        (MimicSpec, {"smoothing": 1}, "mimic.smoothing=1.0: must lie in [0, 1)"),
        (MimicSpec, {"smoothing": -0.1}, "mimic.smoothing=-0.1: must lie in [0, 1)"),
        (OptimSpec, {"lr": 0}, "optim.lr=0.0: must be above 0"),
        (OptimSpec, {"momentum": 1}, "optim.momentum=1.0: must lie in [0, 1)"),
        (OptimSpec, {"weight_decay": -1}, "optim.weight_decay=-1.0: must not be negative"),
        (OptimSpec, {"batch_size": 0}, "optim.batch_size=0: must be at least 1"),
        (OptimSpec, {"step_size": 0}, "optim.step_size=0: must be at least 1"),
        (OptimSpec, {"warmup_epochs": -1}, "optim.warmup_epochs=-1.0: must not be negative"),
        (OptimSpec, {"nesterov": True, "momentum": 0}, "optim.nesterov=true needs optim.momentum above 0"),
        (OptimSpec, {"nesterov": 1}, "nesterov: expected true or false, got 1"),
        (OptimSpec, {"schedule": "cosin"}, "unknown optim.schedule 'cosin'. Did you mean 'cosine'? Choose one of: "),
        (OptimSpec, {"warmup": "none"}, "unknown optim.warmup 'none'. Choose one of: constant, linear"),
        (DataSpec, {"name": 3}, "name: expected a name, got 3"),
        (DataSpec, {"name": "digits", "train_size": -1}, "data.train_size=-1: must not be negative"),
        (DataSpec, {"name": "digits", "pad": -1}, "data.pad=-1: must not be negative"),
        (DataSpec, {"name": "digits", "image_size": -1}, "data.image_size=-1: must not be negative"),
        (DataSpec, {"name": "digits", "val_fraction": 1}, "data.val_fraction=1.0: must lie in [0, 1)"),
        (DataSpec, {"name": "digits", "label_noise": -0.5}, "data.label_noise=-0.5: must lie in [0, 1)"),
        (DataSpec, {"name": "digits", "mean": (1,)}, "data.mean and data.std must have the same length"),
        (DataSpec, {"name": "digits", "mean": (1,), "std": (0,)}, "data.std=[0.0]: must be above 0"),
    ],
)
def test_a_part_says_what_is_wrong_with_a_value(part: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        part(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"dropout": 1}, "dropout=1.0: must lie in [0, 1)"),
        ({"mimic": {}}, "heads can mimic each other only where there are side branches: give branches, or"),
        ({"precision": "bf61"}, "unknown precision 'bf61'. Did you mean 'bf16'? Choose one of: bf16, float32"),
        ({"epoch": 3}, "unknown field of recipe 'epoch'. Did you mean 'epochs'? Choose one of: arch, branches, data"),
        ({"optim": {"lr": "fast"}}, "optim.lr: expected a number, got 'fast'"),
        ({"optim": {"momentun": 0.5}}, "unknown field of optim 'momentun'. Did you mean 'momentum'?"),
        ({"optim": 0.1}, "optim: expected fields and their values, got 0.1"),
        ({"branches": [{"after": 1, "blocks": [1, "x"]}]}, "branches[0].blocks[1]: expected a whole number, got 'x'"),
        ({"branches": [{"blocks": [1, 1]}]}, "branches[0]: after must be given"),
        ({"data": {}}, "data: name must be given"),
        ({"data": None}, "data: expected fields and their values, got None"),
        ({"tf32": "yes"}, "tf32: expected true or false, got 'yes'"),
    ],
)
def test_a_mistake_in_a_written_recipe_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(Recipe, {**to_dict(PLAIN), **changes})


def test_a_written_recipe_needs_its_required_fields() -> None:
    with pytest.raises(ValueError, match=r"^recipe: arch, epochs, data must be given$"):
        from_dict(Recipe, {})
    written: Any = [1]
    with pytest.raises(ValueError, match=r"^recipe: expected fields and their values, got \[1\]$"):
        from_dict(Recipe, written)


def test_a_field_is_replaced_at_its_path_and_nothing_else() -> None:
    changed = replace_at(DHM, "optim.lr", 1)
    assert changed == dataclasses.replace(DHM, optim=OptimSpec(lr=1.0))
    assert DHM.optim.lr == 0.1
    assert replace_at(DHM, "epochs", 9.0) == dataclasses.replace(DHM, epochs=9)
    assert replace_at(DHM, "mimic", {"alpha": 2}).mimic == MimicSpec(alpha=2)
    assert replace_at(DHM, "mimic", None).method == "dsl"
    assert replace_at(DHM, "branches", [{"after": 2, "blocks": [4]}]).branches == (BranchSpec(after=2, blocks=(4,)),)


def test_a_path_through_a_part_that_is_not_there_changes_nothing() -> None:
    assert replace_at(PLAIN, "mimic.alpha", 0.5) == PLAIN


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optm.lr", 0.1, "unknown field 'optm'. Did you mean 'optim'?"),
        ("optim.lrr", 0.1, "unknown field 'optim.lrr'. Did you mean 'optim.lr'?"),
        ("branches.after", 1, "branches.after: branches has no fields of its own; give it whole"),
        ("epochs", 1.5, "epochs: expected a whole number, got 1.5"),
        ("optim.lr", -1, "optim.lr=-1.0: must be above 0"),
        ("mimic.alpha", "x", "alpha: expected a number, got 'x'"),
    ],
)
def test_a_replacement_that_cannot_be_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace_at(DHM, path, value)


def test_a_number_that_no_float_can_hold_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^lr: expected a number, got 1000"):
        from_dict(OptimSpec, {"lr": 10**400})


def test_a_replacement_of_the_wrong_type_is_named_by_its_whole_path() -> None:
    with pytest.raises(ValueError, match=r"^optim\.lr: expected a number, got 'x'$"):
        replace_at(DHM, "optim.lr", "x")


def test_a_misspelt_path_is_refused_also_where_the_part_is_missing() -> None:
    plain = Recipe(arch="resnet8", epochs=1, data=DataSpec(name="digits"))
    assert replace_at(plain, "mimic.alpha", 2) == plain
    with pytest.raises(ValueError, match=r"unknown field 'mimic\.alhpa'\. Did you mean 'mimic\.alpha'"):
        replace_at(plain, "mimic.alhpa", 2)
    with pytest.raises(ValueError, match=r"mimic\.alpha: expected a number"):
        replace_at(plain, "mimic.alpha", "much")

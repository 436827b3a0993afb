import dataclasses
from typing import Any

import pytest

from dhm.recipe import DataSpec, MimicSpec, OptimSpec, Recipe
from experiments import config


def test_nothing_given_changes_nothing() -> None:
    settings = config.read([])
    assert config.overrides_of(settings) == {}
    assert config.levels_of(settings) == {}
    assert (settings.grid, settings.benchmark, settings.seeds) == (None, "digits", None)


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("arch=resnet14", "arch", "resnet14"),
        ("mimic.alpha=0.5", "mimic.alpha", 0.5),
        ("optim.lr=1", "optim.lr", 1.0),
        ("optim.milestones=[1,2]", "optim.milestones", [1, 2]),
        ("data.val_fraction=0.1", "data.val_fraction", 0.1),
        ("data.flip=true", "data.flip", True),
        ("mimic=null", "mimic", None),
        ("branches=[{after: 1, blocks: [2, 1]}]", "branches", [{"after": 1, "blocks": [2, 1]}]),
    ],
)
def test_recipe_fields_can_be_overridden(word: str, path: str, value: Any) -> None:
    assert config.overrides_of(config.read([word])) == {path: value}


def test_every_field_of_the_recipe_is_a_setting() -> None:
    settings = config.read([])
    for cls, node in ((Recipe, settings), (OptimSpec, settings.optim), (MimicSpec, settings.mimic)):
        assert {field.name for field in dataclasses.fields(cls)} <= set(node.keys())
    assert {field.name for field in dataclasses.fields(DataSpec)} - {"name"} <= set(settings.data.keys())


def test_the_root_of_the_data_is_no_part_of_the_recipe() -> None:
    settings = config.read(["data.root=/somewhere"])
    assert settings.data.root == "/somewhere"
    assert config.overrides_of(settings) == {}


def test_levels_go_by_the_names_of_factors() -> None:
    settings = config.read(["factors.positions=['1','1+2']", "factors.mimic.alpha=[0.1,2]"])
    assert config.levels_of(settings) == {"positions": ["1", "1+2"], "mimic.alpha": [0.1, 2]}


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("epocs=3", ["epocs", "Did you mean 'epochs'"]),
        ("optim.lrr=3", ["optim.lrr", "Did you mean 'optim.lr'"]),
        ("pool.gpu=1", ["pool.gpu", "Did you mean 'pool.gpus'"]),
        ("data.name=cifar10", ["data.name"]),
        ("epochs=abc", ["epochs", "abc"]),
        ("epochs=3.5", ["epochs", "3.5"]),
        ("optim.lr=fast", ["optim.lr", "fast"]),
        ("plan=maybe", ["plan", "maybe"]),
        ("pool.threads=two", ["pool.threads", "two"]),
        ("+x=1", ["+x=1", "none can be added"]),
        ("++epochs=1", ["++epochs=1", "none can be added"]),
        ("~grid", ["~grid", "none can be added or removed"]),
        ("epochs=1,2", ["epochs=1,2", "factors.NAME"]),
        ("methods", ["methods", "name=value"]),
        ("epochs=[1", ["epochs=[1", "quotes"]),
        ("optim=3", ["optim"]),
        ("hydra.verbose=true", ["hydra"]),
    ],
)
def test_mistakes_are_one_line_that_names_them(word: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        config.read([word])
    message = str(caught.value)
    assert "\n" not in message
    for expected in words:
        assert expected in message

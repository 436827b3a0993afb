"""Arms that share a seed share all that is not the method; a run repeats and resumes to the bit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dhm import checkpoint
from dhm.backbones import Backbone
from dhm.backbones.base import SeededDropout
from dhm.data import RawData
from dhm.engine import fit
from dhm.fields import replace_at
from dhm.losses import TERMS, Terms
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe, TermSpec
from dhm.training import Callback, Result, Runtime, Training

SHALLOW, DEEP = BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,), width=2)
DHM = Recipe(
    arch="resnet8",
    epochs=4,
    data=DataSpec(name="digits", train_size=50, pad=1),
    optim=OptimSpec(lr=0.05, batch_size=20, milestones=(2,)),
    branches=(SHALLOW, DEEP),
    mimic=MimicSpec(),
)
DSL = dataclasses.replace(DHM, mimic=None)
PLAIN = dataclasses.replace(DSL, branches=())
ARMS = {"plain": PLAIN, "dsl": DSL, "dhm": DHM, "dhm at 2": dataclasses.replace(DHM, branches=(DEEP,))}
DROPOUT = dataclasses.replace(
    replace_at(replace_at(DHM, "data.label_noise", 0.3), "data.val_fraction", 0.2),
    arch="wrn_10_1",
    dropout=0.3,
    optim=OptimSpec(lr=0.05, batch_size=16, schedule="cosine", warmup_epochs=1.5),
)
RECIPES = {"plain": PLAIN, "dhm": DHM, "dropout, noise, validation": DROPOUT}


class Witness(Callback):
    """Keeps the first weights, every training batch, and what is left at the end; raises where it is told to."""

    def __init__(self, *, stop_after_epochs: int = 0, stop_at: tuple[int, int] | None = None) -> None:
        self.batches: list[Tensor] = []
        self.stop_after_epochs, self.stop_at = stop_after_epochs, stop_at

    def on_start(self, training: Training) -> None:
        self.training = training
        self.first = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
        training.network.register_forward_pre_hook(self.see)

    def see(self, network: nn.Module, inputs: tuple[Tensor]) -> None:
        if network.training:
            self.batches.append(inputs[0].clone())

    def on_step(self, training: Training) -> None:
        if (training.epoch, training.step) == self.stop_at:
            raise InterruptedError

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch == self.stop_after_epochs:
            raise InterruptedError


def run(recipe: Recipe, data: RawData, seed: int = 0, path: Path | None = None) -> tuple[Result, Witness]:
    witness = Witness()
    return fit(recipe, seed, Runtime(checkpoint=path, checkpoint_every=0), (witness,), data), witness


def main_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}


def assert_equal_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_equal_runs(left: tuple[Result, Witness], right: tuple[Result, Witness]) -> None:
    """Weights, BatchNorm's statistics, momentum, every epoch's metrics, errors of classes: all equal in every bit."""
    (result, witness), (other, other_witness) = left, right
    assert_equal_tensors(result.network.state_dict(), other.network.state_dict())
    momentum, other_momentum = (
        {str(key): values["momentum_buffer"] for key, values in seen.training.optimiser.state_dict()["state"].items()}
        for seen in (witness, other_witness)
    )
    assert len(momentum) > 0
    assert_equal_tensors(momentum, other_momentum)
    assert [(record.epoch, record.metrics) for record in result.history] == [
        (record.epoch, record.metrics) for record in other.history
    ]
    assert result.class_errors == other.class_errors


def test_all_arms_start_from_one_main_branch_and_see_the_same_batches(few_digits: RawData) -> None:
    seen = {name: run(recipe, few_digits)[1] for name, recipe in ARMS.items()}
    for witness in seen.values():
        assert_equal_tensors(main_weights(witness.first), seen["plain"].first)
        assert len(witness.batches) == 4 * 3
        assert all(torch.equal(*pair) for pair in zip(witness.batches, seen["plain"].batches, strict=True))
    assert_equal_tensors(seen["dhm"].first, seen["dsl"].first)


def test_batches_differ_from_epoch_to_epoch_and_from_seed_to_seed(few_digits: RawData) -> None:
    still = replace_at(replace_at(PLAIN, "data.pad", 0), "data.flip", False)  # so that only the order can differ
    first, second = run(still, few_digits)[1], run(still, few_digits, seed=1)[1]
    assert not torch.equal(first.batches[0], first.batches[3])
    assert not torch.equal(first.batches[0], second.batches[0])
    different = [name for name, tensor in first.first.items() if not torch.equal(tensor, second.first[name])]
    assert len(different) == sum(tensor.ndim in (2, 4) for tensor in first.first.values()) + 1  # and the bias


@pytest.mark.parametrize("recipe", [DHM, DROPOUT], ids=["resnet8", "wrn_10_1"])
def test_alpha_zero_is_deep_supervision_bit_for_bit(recipe: Recipe, few_digits: RawData) -> None:
    dsl, _ = run(dataclasses.replace(recipe, mimic=None), few_digits)
    zero, _ = run(replace_at(recipe, "mimic.alpha", 0), few_digits)
    assert_equal_tensors(zero.network.state_dict(), dsl.network.state_dict())
    for left, right in zip(zero.history, dsl.history, strict=True):
        assert {name: value for name, value in left.metrics.items() if "mimic" not in name} == right.metrics
    assert any("mimic" in name for name in zero.history[0].metrics)
    # and with a weight mimicking is something else
    full, _ = run(recipe, few_digits)
    assert full.history[-1].metrics["loss/ce/main"] != dsl.history[-1].metrics["loss/ce/main"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_run_repeats_to_the_bit(recipe: Recipe, few_digits: RawData) -> None:
    torch.manual_seed(1)
    first = run(recipe, few_digits)
    torch.manual_seed(2)
    assert_equal_runs(first, run(recipe, few_digits))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(
    ("stop", "done"), [({"stop_after_epochs": 1}, 1), ({"stop_after_epochs": 3}, 3), ({"stop_at": (2, 2)}, 2)]
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    recipe: Recipe, stop: dict[str, Any], done: int, few_digits: RawData, tmp_path: Path
) -> None:
    undisturbed = run(recipe, few_digits)
    path = tmp_path / "run.pt"
    with pytest.raises(InterruptedError):
        fit(recipe, 0, Runtime(checkpoint=path, checkpoint_every=0), (Witness(**stop),), few_digits)
    assert len(checkpoint.load(path)["history"]) == done
    resumed = run(recipe, few_digits, path=path)
    assert len(resumed[1].batches) == (4 - done) * resumed[1].training.steps
    assert resumed[1].training.notes == []
    assert_equal_runs(resumed, undisturbed)


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_again(few_digits: RawData, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(InterruptedError):
        fit(DHM, 0, Runtime(checkpoint=path, checkpoint_every=0), (Witness(stop_at=(0, 1)),), few_digits)
    assert not path.exists()
    assert_equal_runs(run(DHM, few_digits, path=path), run(DHM, few_digits))


def test_a_run_that_is_complete_is_read_from_its_checkpoint(few_digits: RawData, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    done = run(DHM, few_digits, path=path)
    again = run(DHM, few_digits, path=path)
    assert again[1].batches == []
    assert_equal_runs(again, done)
    assert again[0].history == done[0].history
    assert (again[0].seconds, again[0].step_ms) == (done[0].seconds, done[0].step_ms)


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor, Recipe], Terms]:
    """A term that draws from torch's global stream, as a part from elsewhere may, and shows what it drew."""

    def draw(logits: Tensor, labels: Tensor, recipe: Recipe) -> Terms:
        drawn = torch.rand(())
        return Terms(("jitter", "drawn"), torch.stack(((logits * torch.rand(logits.shape)).mean(), drawn)))

    monkeypatch.setattr(TERMS, "_values", dict(TERMS._values))
    return TERMS.register("jitter", draw)


@pytest.mark.usefixtures("jitter")
def test_a_part_that_draws_from_the_global_stream_resumes_too(few_digits: RawData, tmp_path: Path) -> None:
    recipe = dataclasses.replace(DHM, terms=(TermSpec(name="jitter"),))
    torch.manual_seed(1)
    undisturbed = run(recipe, few_digits)
    assert len({record.metrics["loss/drawn"] for record in undisturbed[0].history}) == recipe.epochs
    torch.manual_seed(2)
    runtime = Runtime(checkpoint=tmp_path / "run.pt", checkpoint_every=0)
    with pytest.raises(InterruptedError):
        fit(recipe, 0, runtime, (Witness(stop_after_epochs=2),), few_digits)
    torch.manual_seed(3)
    assert_equal_runs(run(recipe, few_digits, path=tmp_path / "run.pt"), undisturbed)


@pytest.mark.parametrize("arch", ["resnet8", "wrn_10_1", "densenet_10_6"])
def test_a_branch_starts_the_same_whatever_other_branches_there_are(arch: str) -> None:
    def first(*branches: BranchSpec, seed: int = 0) -> dict[str, dict[str, Tensor]]:
        recipe = dataclasses.replace(DSL, arch=arch, branches=branches)
        network = build_network(recipe, in_channels=1, num_classes=10, seed=seed)
        parts: dict[str, nn.Module] = {"main": network.backbone, **dict(network.sides.items())}
        return {name: part.state_dict() for name, part in parts.items()}

    torch.manual_seed(1)
    both = first(SHALLOW, DEEP)
    torch.manual_seed(2)
    others = (
        first(),
        first(SHALLOW),
        first(DEEP),
        first(DEEP, SHALLOW, SHALLOW),
        first(BranchSpec(after=1, blocks=(2, 3)), DEEP),
    )
    for number, other in enumerate(others):
        assert_equal_tensors(other["main"], both["main"])
        if "side2" in other:
            assert_equal_tensors(other["side2"], both["side2"])
        if "side1" in other and number < 4:
            assert_equal_tensors(other["side1"], both["side1"])
    twins = others[3]
    weights = [name for name, tensor in twins["side1"].items() if tensor.ndim == 4]
    assert not any(torch.equal(twins["side1"][name], twins["side1b"][name]) for name in weights)
    elsewhere = first(SHALLOW, DEEP, seed=1)
    assert not any(torch.equal(elsewhere["side1"][name], both["side1"][name]) for name in weights)


def masks(branches: tuple[BranchSpec, ...], epoch: int = 0, seed: int = 0) -> dict[str, list[Tensor]]:
    """What each head's dropout layers drop in the first step of an epoch."""
    recipe = dataclasses.replace(DROPOUT, branches=branches, mimic=None)
    network = build_network(recipe, in_channels=1, num_classes=10, seed=0).train()
    network.seed_dropout(seed, epoch, torch.device("cpu"))
    seen: dict[str, list[Tensor]] = {}
    for head, part in (("main", network.backbone), *network.sides.items()):
        seen[head] = []
        for layer in part.modules():
            if isinstance(layer, SeededDropout):
                # ones in place of the maps, so that what is dropped shows
                layer.register_forward_pre_hook(lambda _, maps: (torch.ones_like(maps[0]),))
                layer.register_forward_hook(lambda _, __, out, drops=seen[head]: drops.append(out == 0))
    network(torch.rand(4, 1, 8, 8))
    return seen


def test_dropout_of_a_head_does_not_depend_on_other_heads() -> None:
    both = masks((SHALLOW, DEEP))
    assert {head: len(drops) for head, drops in both.items()} == {"main": 3, "side1": 2, "side2": 1}
    for branches in ((), (SHALLOW,), (DEEP,)):
        for head, drops in masks(branches).items():
            assert all(torch.equal(*pair) for pair in zip(drops, both[head], strict=True))


def test_dropout_differs_between_heads_epochs_and_seeds() -> None:
    base = masks((SHALLOW, DEEP))
    twins = masks((SHALLOW, SHALLOW))
    assert not any(torch.equal(*pair) for pair in zip(twins["side1"], twins["side1b"], strict=True))
    # one stream for both would begin alike
    first = base["side1"][0].flatten()
    assert not torch.equal(base["main"][0].flatten()[: len(first)], first)
    for other in (masks((SHALLOW, DEEP), epoch=1), masks((SHALLOW, DEEP), seed=1)):
        for head, drops in base.items():
            assert not any(torch.equal(*pair) for pair in zip(drops, other[head], strict=True))


@pytest.mark.parametrize("recipe", ARMS.values(), ids=ARMS)
def test_what_an_initialisation_leaves_alone_follows_from_the_seed_too(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "initialise", lambda *given: None)

    def built(recipe: Recipe, seed: int) -> dict[str, Tensor]:
        torch.rand(7)  # wherever torch's own stream stands
        return build_network(recipe, in_channels=1, num_classes=10, seed=seed).state_dict()

    first, again, other, plain = built(recipe, 0), built(recipe, 0), built(recipe, 1), built(PLAIN, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], plain[name]) for name in plain), "arms share the main branch's"
    assert not torch.equal(first["backbone.stem.0.weight"], other["backbone.stem.0.weight"])

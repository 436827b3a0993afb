import copy
import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dhm.data import RawData
from dhm.diagnostics import Diagnostics, gradient_cosines, head_losses, prediction_agreement
from dhm.engine import fit
from dhm.fields import replace_at
from dhm.losses import objective
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe
from dhm.steps import Step
from dhm.training import Callback, Result, Runtime, Training

DSL = Recipe(
    arch="resnet8",
    epochs=3,
    data=DataSpec(name="digits", train_size=40, pad=1, flip=True),
    optim=OptimSpec(batch_size=20),
    branches=(BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,))),
)
DHM = replace_at(DSL, "mimic", MimicSpec())
WRN = dataclasses.replace(
    DHM,
    arch="wrn_16_8",
    epochs=2,
    dropout=0.3,
    data=dataclasses.replace(DHM.data, train_size=10),
    optim=OptimSpec(batch_size=10),
)
PREFIX = "diagnostics/"


class Leave(Callback):
    """Ends a run after an epoch, as a crash would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch == self.after:
            raise KeyboardInterrupt


def split_metrics(result: Result) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Every epoch's diagnostics, and all its other metrics."""
    found = [
        {name: value for name, value in record.metrics.items() if name.startswith(PREFIX)} for record in result.history
    ]
    others = [{k: v for k, v in record.metrics.items() if not k.startswith(PREFIX)} for record in result.history]
    return found, others


@pytest.fixture(scope="module")
def measured(few_digits: RawData) -> dict[str, Result]:
    return {name: fit(recipe, 3, None, [Diagnostics()], few_digits) for name, recipe in (("dsl", DSL), ("dhm", DHM))}


def logits_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(images).stacked().double()


def test_names_and_ranges(measured: dict[str, Result]) -> None:
    first, *later = split_metrics(measured["dhm"])[0]
    heads = ("main", "side1", "side2")
    ordered = {f"{a}.{b}" for a, b in itertools.permutations(heads, 2)}
    unordered = {f"{a}.{b}" for a, b in itertools.combinations(heads, 2)}
    kinds = ("gradient_cosine", "gradient_cosine_variance", "gradient_cosine_ce", "gradient_cosine_ce_variance")
    expected = {f"{PREFIX}kl/{pair}" for pair in ordered}
    expected |= {f"{PREFIX}{kind}/{pair}" for kind in ("agreement", *kinds) for pair in unordered}
    assert all(set(metrics) == expected for metrics in later)
    assert set(first) == expected | {f"{PREFIX}initial_kl/{pair}" for pair in ordered}
    for name, value in first.items():
        assert (-1 <= value <= 1) if "cosine/" in name or "ce/" in name else 0 <= value <= 100, name
    assert any(value > 0 for name, value in first.items() if "variance" in name)


def test_predictions_against_a_direct_computation(measured: dict[str, Result], few_digits: RawData) -> None:
    training = Training(DHM, 3, Runtime(), few_digits)
    training.network.load_state_dict(measured["dhm"].network.state_dict())
    training.network.eval()
    found = split_metrics(measured["dhm"])[0][-1]
    ((images, _),) = training.held_out["test"].batches(100)
    logits = logits_of(training.network, images)
    for i, student in enumerate(DHM.heads):
        for j, teacher in enumerate(DHM.heads):
            if i == j:
                continue
            p, q = logits[j].softmax(-1), logits[i].softmax(-1)
            kl = float((p * (p / q).log()).sum(-1).mean())
            assert found[f"{PREFIX}kl/{student}.{teacher}"] == pytest.approx(kl, rel=1e-6)
            if i < j:
                same = 100 * float((logits[i].argmax(-1) == logits[j].argmax(-1)).double().mean())
                assert found[f"{PREFIX}agreement/{student}.{teacher}"] == pytest.approx(same)


def test_a_set_that_takes_several_batches_gives_the_same(few_digits: RawData, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(DHM, 3, Runtime(), few_digits)
    kl, same = prediction_agreement(training, training.network)
    monkeypatch.setattr("dhm.diagnostics.EVAL_BATCH", 33)
    again, same_again = prediction_agreement(training, training.network)
    torch.testing.assert_close(again, kl)
    assert torch.equal(same_again, same)
    # A last batch of one image could not be normalised by itself.
    sizes = []
    monkeypatch.setattr(
        type(training.network), "forward", lambda net, images: sizes.append(len(images)) or _heads_like(images)
    )
    prediction_agreement(training, training.network, batch_statistics=True)
    assert sizes == [25, 25, 25, 25]


def _heads_like(images: torch.Tensor) -> object:
    from dhm.network import Heads

    return Heads(images.new_zeros(len(images), 10), (images.new_zeros(len(images), 10),) * 2)


def test_before_training_each_batch_is_normalised_by_itself(measured: dict[str, Result], few_digits: RawData) -> None:
    network = build_network(DHM, in_channels=1, num_classes=10, seed=3).train()
    training = Training(DHM, 3, Runtime(), few_digits)
    ((images, _),) = training.held_out["test"].batches(100)
    logits = logits_of(network, images)
    p, q = logits[1].softmax(-1), logits[0].softmax(-1)
    expected = float((p * (p / q).log()).sum(-1).mean())
    found = {name: split_metrics(result)[0][0] for name, result in measured.items()}
    assert found["dhm"][f"{PREFIX}initial_kl/main.side1"] == pytest.approx(expected, rel=1e-5)
    # The first weights are those of both methods.
    initial = [{name: value for name, value in metrics.items() if "initial_kl" in name} for metrics in found.values()]
    assert initial[0] == initial[1]


def direct_gradients(recipe: Recipe, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict:
    """The gradient of every head's loss, one backward pass each, by the name of the parameter."""
    logits = network(images).stacked()
    mimic = recipe.mimic
    found = {}
    for kind in ("whole", "ce"):
        for i, head in enumerate(recipe.heads):
            loss = F.cross_entropy(logits[i], labels)
            for j in range(len(recipe.heads)) if mimic is not None and kind == "whole" else ():
                if i != j:
                    t = mimic.temperature
                    teacher, student = (logits[j] / t).log_softmax(-1), (logits[i] / t).log_softmax(-1)
                    teacher = teacher.detach() if mimic.stop_gradient else teacher
                    pulled = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
                    loss = loss + mimic.alpha * t**2 * pulled
            network.zero_grad()
            loss.backward(retain_graph=True)
            found[kind, head] = {
                name: parameter.grad.clone()
                for name, parameter in network.named_parameters()
                if parameter.grad is not None and bool(parameter.grad.any())
            }
    return found


@pytest.mark.parametrize(
    "recipe",
    [
        DSL,
        replace_at(DHM, "mimic", MimicSpec(alpha=3.0, temperature=2.0, smoothing=0.0)),
        replace_at(DHM, "mimic", MimicSpec(smoothing=0.0, stop_gradient=False)),
        replace_at(DSL, "branches", (BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=1, blocks=(1, 1)))),
        replace_at(
            replace_at(DSL, "arch", "resnet14"),
            "branches",
            (BranchSpec(after=2, block=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,))),
        ),
    ],
    ids=["dsl", "dhm", "gradients into teachers", "two at one node", "inside a stage"],
)
def test_cosines_against_a_direct_computation(recipe: Recipe, few_digits: RawData) -> None:
    training = Training(recipe, 1, Runtime(), few_digits)
    images, labels = next(iter(training.batches.epoch(5, 0)))
    found = gradient_cosines(training, images, labels)
    network = copy.deepcopy(training.network).train()
    gradients = direct_gradients(recipe, network, images, labels)
    for place, kind in enumerate(("whole", "ce")):
        for i, j in itertools.combinations(range(len(recipe.heads)), 2):
            a, b = (gradients[kind, recipe.heads[index]] for index in (i, j))
            common = {id(parameter) for parameter in expected_shared(recipe, training, i, j)}
            shared = [name for name, parameter in training.network.named_parameters() if id(parameter) in common]
            if recipe.mimic is None or recipe.mimic.stop_gradient:
                # It is what the backward passes of both heads reach.
                assert shared == [name for name in a if name in b]
            flat = [torch.cat([part[name].flatten() for name in shared]).double() for part in (a, b)]
            expected = float(F.cosine_similarity(*flat, dim=0))
            assert float(found[place, i, j]) == pytest.approx(expected, abs=2e-5), (kind, i, j)
    assert (recipe.mimic is None) == torch.equal(found[0], found[1])


def expected_shared(recipe: Recipe, training: Training, i: int, j: int) -> list[nn.Parameter]:
    """The parameters that two heads have in common, by the words of the recipe."""
    branches = [recipe.branches[head - 1] for head in (i, j) if head > 0]
    first = min(branches, key=lambda branch: (branch.after, branch.block or 99))
    backbone = training.network.backbone
    whole = [backbone.stem, *backbone.stages[: first.after - (1 if first.block else 0)]]
    part = list(backbone.stages[first.after - 1])[: first.block] if first.block else []
    return [parameter for module in (*whole, *part) for parameter in module.parameters()]


@pytest.mark.parametrize(
    "recipe",
    [
        DSL,
        DHM,
        replace_at(DHM, "mimic", MimicSpec(alpha=0.5, temperature=3.0, pairs="sides_to_main", alpha_warmup=4.0)),
        replace_at(
            replace_at(DHM, "branches", (BranchSpec(after=2, blocks=(1,), fork_probability=0.5),)),
            "fork_scaling",
            "inverse",
        ),
    ],
    ids=["dsl", "dhm", "warm-up", "scaled"],
)
def test_the_losses_of_the_heads_add_up_to_the_objective(recipe: Recipe, few_digits: RawData) -> None:
    network = build_network(recipe, in_channels=1, num_classes=10, seed=0)
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    step = Step(recipe=recipe, heads=recipe.heads, moment=1.0)
    heads = network(images)
    whole, ce = head_losses(heads.stacked(), labels, step)
    total = objective(heads, labels, recipe, step).total
    torch.testing.assert_close(whole.sum(), total)
    assert whole.shape == ce.shape == (len(recipe.heads),)
    assert (whole is ce) == (recipe.mimic is None)


def test_without_mimicking_terms_that_weigh_both_kinds_are_one(few_digits: RawData) -> None:
    silent = fit(replace_at(DHM, "mimic.alpha", 0.0), 3, None, [Diagnostics()], few_digits)
    for metrics in split_metrics(silent)[0]:
        for name in [name for name in metrics if "gradient_cosine/" in name]:
            assert metrics[name] == metrics[name.replace("gradient_cosine", "gradient_cosine_ce")]


@pytest.mark.parametrize("recipe", [DSL, DHM, WRN], ids=["dsl", "dhm", "dropout"])
def test_a_run_is_the_same_bit_for_bit_with_and_without(
    recipe: Recipe, measured: dict[str, Result], few_digits: RawData
) -> None:
    data = few_digits
    if recipe is WRN:
        data = dataclasses.replace(data, test_images=data.test_images[:10], test_labels=data.test_labels[:10])
    with_them = fit(recipe, 3, None, [Diagnostics()], data) if recipe is WRN else measured[recipe.method]
    without = fit(recipe, 3, None, [], data)
    assert split_metrics(with_them)[1] == split_metrics(without)[1]
    assert split_metrics(without)[0] == [{}] * recipe.epochs
    assert repr(with_them.class_errors) == repr(without.class_errors)  # NaN where a class has no test image
    states = with_them.network.state_dict(), without.network.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_measuring_leaves_everything_as_it_was(few_digits: RawData) -> None:
    training = Training(replace_at(DHM, "epochs", 1), 3, Runtime(), few_digits)
    network = training.network
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    network.train()
    network.sides["side1"].eval()
    modes = {name: module.training for name, module in network.named_modules()}
    tracking = [m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = copy.deepcopy(training.optimiser.state_dict())
    drawn = torch.get_rng_state()
    diagnostics = Diagnostics()
    diagnostics.on_start(training)
    assert diagnostics.measure(training)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert [m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == tracking
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in network.parameters())
    after = training.optimiser.state_dict()
    assert after["param_groups"] == optimiser["param_groups"]
    assert after["state"].keys() == optimiser["state"].keys()
    for number, kept in optimiser["state"].items():
        assert torch.equal(after["state"][number]["momentum_buffer"], kept["momentum_buffer"])
    assert training.history == []


def test_arms_of_a_seed_are_measured_on_the_same_images_and_seeds_on_others(few_digits: RawData) -> None:
    def batches(recipe: Recipe, seed: int, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
        diagnostics = Diagnostics(batches=count)
        diagnostics.on_start(Training(recipe, seed, Runtime(), few_digits))
        return diagnostics._batches

    mine = batches(DSL, 0)
    assert [len(labels) for _, labels in mine] == [20, 20]
    for recipe in (DHM, replace_at(DHM, "data.pad", 0), replace_at(DHM, "data.flip", False)):
        assert all(
            torch.equal(a, b) for a, b in zip(*([x for x, _ in batches(r, 0)] for r in (DSL, recipe)), strict=True)
        )
    assert not torch.equal(mine[0][0], batches(DSL, 1)[0][0])
    assert len(batches(DSL, 0, count=9)) == 2
    # Not augmented: every image is one of the training images as they lie in the set.
    whole = Training(replace_at(replace_at(DSL, "data.pad", 0), "data.flip", False), 0, Runtime(), few_digits)
    plain = torch.cat([images for images, _ in whole.batches.epoch(0, 0)])
    assert all(bool((plain == image).all(dim=(1, 2, 3)).any()) for images, _ in mine for image in images)
    # Nor are they the first ones of an epoch.
    assert not torch.equal(mine[0][1], next(iter(whole.batches.epoch(0, 0)))[1])


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_epochs_that_are_measured(every: int, expected: list[int], few_digits: RawData) -> None:
    found, _ = split_metrics(fit(DSL, 0, None, [Diagnostics(every=every, batches=1)], few_digits))
    epochs = [number for number, metrics in enumerate(found, start=1) if metrics]
    assert epochs == expected
    assert [number for number in epochs if any("initial_kl" in name for name in found[number - 1])] == expected[:1]
    assert not any("variance" in name for metrics in found for name in metrics), "one batch has no variance"


@pytest.mark.parametrize(("every", "crash"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_run_that_was_killed_has_the_same_diagnostics(
    every: int, crash: int, tmp_path: Path, few_digits: RawData
) -> None:
    runtime = Runtime(checkpoint=tmp_path / "run.pt", checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        fit(DHM, 3, runtime, [Diagnostics(every=every), Leave(crash)], few_digits)
    resumed = fit(DHM, 3, runtime, [Diagnostics(every=every)], few_digits)
    whole = fit(DHM, 3, None, [Diagnostics(every=every)], few_digits)
    assert split_metrics(resumed)[0] == split_metrics(whole)[0]
    assert sum(any("initial_kl" in name for name in metrics) for metrics in split_metrics(resumed)[0]) == 1


def test_they_are_the_same_where_maps_are_computed_again(few_digits: RawData) -> None:
    kept = fit(DHM, 3, None, [Diagnostics()], few_digits)
    again = fit(DHM, 3, Runtime(recompute=True), [Diagnostics()], few_digits)
    assert split_metrics(again) == split_metrics(kept)


def test_plain_training_has_no_heads_to_compare(few_digits: RawData) -> None:
    plain = replace_at(replace_at(DSL, "branches", ()), "epochs", 1)
    assert split_metrics(fit(plain, 0, None, [Diagnostics()], few_digits))[0] == [{}]


@pytest.mark.parametrize("words", [{"every": 0}, {"every": -1}, {"batches": 0}])
def test_mistakes(words: dict[str, int]) -> None:
    (name,) = words
    with pytest.raises(ValueError, match=rf"diagnostics\.{name}=.*at least 1"):
        Diagnostics(**words)

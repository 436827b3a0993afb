import dataclasses
import math
import weakref
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dhm import checkpoint
from dhm.data import Batches, Normaliser, RawData, split
from dhm.engine import EVAL_BATCH, evaluate, fit
from dhm.fields import replace_at
from dhm.network import BranchedNetwork, build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe, TermSpec
from dhm.training import Callback, EpochRecord, NotFiniteError, Result, Runtime, Training

DHM = Recipe(
    arch="resnet8",
    epochs=2,
    data=DataSpec(name="digits", train_size=50, pad=1, flip=False),
    optim=OptimSpec(lr=0.05, batch_size=20, schedule="linear"),
    branches=(BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=2, blocks=(1,), width=2)),
    mimic=MimicSpec(alpha=0.5),
)
PLAIN = dataclasses.replace(DHM, branches=(), mimic=None)
PAIRS = ("main.side1", "main.side2", "side1.main", "side1.side2", "side2.main", "side2.side1")


def of_heads(part: str, *figures: str) -> set[str]:
    return {f"{part}/{figure}{suffix}" for figure in figures for suffix in ("", "/side1", "/side2")}


@pytest.fixture(scope="module")
def learnt(digits: RawData) -> tuple[Result, Training]:
    """A run that learns; evaluated on all test images."""
    recipe = dataclasses.replace(replace_at(DHM, "data.train_size", 300), epochs=4)

    class Keep(Callback):
        def on_start(self, training: Training) -> None:
            self.training = training

    keep = Keep()
    return fit(recipe, 0, callbacks=(keep,), data=digits), keep.training


def test_digits_are_learnt(learnt: tuple[Result, Training]) -> None:
    history = learnt[0].history
    losses = [record.metrics["train/loss"] for record in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert history[-1].metrics["train/top1_error"] < 20
    assert all(history[-1].metrics[name] < 50 for name in of_heads("test", "top1_error"))
    assert [record.epoch for record in history] == [0, 1, 2, 3]


def test_an_epoch_has_the_metrics_of_every_head_by_name(few_digits: RawData) -> None:
    result = fit(replace_at(DHM, "data.val_fraction", 0.2), 0, data=few_digits)
    figures = ("top1_error", "top5_error", "loss")
    expected = {"train/loss", "train/top1_error", "train/lr", "loss/ce/main", "loss/ce/side1", "loss/ce/side2"}
    expected |= {f"loss/mimic/{pair}" for pair in PAIRS} | of_heads("test", *figures) | of_heads("val", *figures)
    for record in result.history:
        assert set(record.metrics) == expected
        assert all(type(value) is float and math.isfinite(value) for value in record.metrics.values())


def test_plain_training_has_no_metrics_of_side_branches_and_no_empty_validation(few_digits: RawData) -> None:
    (first, _) = fit(PLAIN, 0, data=few_digits).history
    assert set(first.metrics) == {"train/loss", "train/top1_error", "train/lr", "loss/ce/main"} | {
        f"test/{figure}" for figure in ("top1_error", "top5_error", "loss")
    }


def test_few_classes_have_no_top5_error(few_digits: RawData) -> None:
    chosen, tested = few_digits.train_labels < 3, few_digits.test_labels < 3
    three = RawData(
        train_images=few_digits.train_images[chosen],
        train_labels=few_digits.train_labels[chosen],
        test_images=few_digits.test_images[tested],
        test_labels=few_digits.test_labels[tested],
        classes=("0", "1", "2"),
    )
    result = fit(DHM, 0, data=three)
    assert not any("top5" in name for name in result.history[-1].metrics)
    assert set(result.class_errors["side1"]) == {"0", "1", "2"}


def by_hand(recipe: Recipe, data: RawData, seed: int) -> tuple[BranchedNetwork, list[float], list[float]]:
    """Training written out: torch's own SGD and losses, image by image weights for the means."""
    parts = split(data, recipe.data, seed)
    batches = Batches(parts.train, recipe.data, batch_size=recipe.optim.batch_size)
    network = build_network(recipe, in_channels=1, num_classes=10, seed=seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4, foreach=False)
    means, errors = [], []
    for epoch in range(recipe.epochs):
        total, wrong = 0.0, 0
        for step, (images, labels) in enumerate(batches.epoch(seed, epoch)):
            network.train()
            heads = network(images)
            logits = [heads.main, *heads.sides]
            loss = torch.stack([F.cross_entropy(head, labels) for head in logits]).sum()
            for i, student in enumerate(logits):
                for j, teacher in enumerate(logits):
                    if i != j:
                        p, q = ((F.softmax(z, 1) + 1e-8) / (1 + 10e-8) for z in (teacher.detach(), student))
                        loss = loss + 0.5 * (p * (p / q).log()).sum(1).mean()
            optimiser.param_groups[0]["lr"] = 0.05 * (1 - (epoch + step / len(batches)) / recipe.epochs)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(labels)
            wrong += int((heads.main.argmax(1) != labels).sum())
        means.append(total / len(parts.train))
        errors.append(100 * wrong / len(parts.train))
    return network, means, errors


def test_training_agrees_with_a_loop_written_out(few_digits: RawData) -> None:
    network, means, errors = by_hand(DHM, few_digits, seed=4)
    result = fit(DHM, 4, data=few_digits)
    assert [record.metrics["train/loss"] for record in result.history] == pytest.approx(means, rel=1e-4)
    assert [record.metrics["train/top1_error"] for record in result.history] == pytest.approx(errors, rel=1e-5)
    assert result.history[-1].metrics["train/lr"] == pytest.approx(0.05 * (1 - 5 / 6))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(result.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_the_loss_of_an_epoch_is_the_weighted_sum_of_its_terms(learnt: tuple[Result, Training]) -> None:
    for record in learnt[0].history:
        of_ce, of_mimic = (
            sum(value for name, value in record.metrics.items() if name.startswith(f"loss/{kind}"))
            for kind in ("ce", "mimic")
        )
        assert record.metrics["train/loss"] == pytest.approx(of_ce + 0.5 * of_mimic, rel=1e-5)


def test_test_metrics_agree_with_an_evaluation_written_out(learnt: tuple[Result, Training], digits: RawData) -> None:
    result, training = learnt
    assert len(digits.test_images) > EVAL_BATCH
    normalise = Normaliser.measured(split(digits, training.recipe.data, 0).train.images).on("cpu")
    network = result.network.eval()
    with torch.no_grad():
        heads = network(normalise(digits.test_images))
    for suffix, logits in zip(("", "/side1", "/side2"), (heads.main, *heads.sides), strict=True):
        top5 = logits.argsort(1, descending=True)[:, :5]
        missed = (top5 != digits.test_labels[:, None]).all(1).double().mean()
        expected = {
            "top1_error": 100 * float((logits.argmax(1) != digits.test_labels).double().mean()),
            "top5_error": 100 * float(missed),
            "loss": float(F.cross_entropy(logits.double(), digits.test_labels)),
        }
        found = {name: result.history[-1].metrics[f"test/{name}{suffix}"] for name in expected}
        assert found == pytest.approx(expected, rel=1e-5)


def test_errors_of_classes_average_to_the_error(learnt: tuple[Result, Training], digits: RawData) -> None:
    result, _ = learnt
    counts = torch.bincount(digits.test_labels).double()
    assert len(counts.unique()) > 1  # so that the average must be a weighted one
    assert tuple(result.class_errors) == ("main", "side1", "side2")
    for head, errors in result.class_errors.items():
        assert tuple(errors) == digits.classes
        average = float((torch.tensor(list(errors.values()), dtype=torch.float64) * counts).sum() / counts.sum())
        suffix = "" if head == "main" else f"/{head}"
        assert average == pytest.approx(result.final[f"top1_error{suffix}"], rel=1e-9)


def test_evaluating_changes_nothing(learnt: tuple[Result, Training]) -> None:
    result, training = learnt
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    metrics = evaluate(training)
    assert metrics == {name: value for name, value in result.history[-1].metrics.items() if name.startswith("test/")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())


def test_final_is_the_last_epoch_and_best_the_first_of_the_best() -> None:
    errors = [(40.0, 30.0), (20.0, 35.0), (20.0, 10.0), (25.0, 5.0)]
    history = tuple(
        EpochRecord(
            epoch,
            0.0,
            {
                "train/top1_error": 0.0,
                "val/top1_error": 50.0 - epoch,
                "test/top1_error": main,
                "test/top5_error": main / 10,
                "test/top1_error/side1": side,
                "test/loss": 1.0,
            },
        )
        for epoch, (main, side) in enumerate(errors)
    )
    network = build_network(PLAIN, in_channels=1, num_classes=10)
    result = Result(history=history, network=network, class_errors={}, seconds=1.0, step_ms=1.0)
    assert result.final == {"top1_error": 25.0, "top5_error": 2.5, "top1_error/side1": 5.0}
    assert result.best == {"top1_error": 20.0, "top5_error": 2.0, "top1_error/side1": 35.0, "epoch": 1.0}


def test_a_loss_that_is_no_number_names_the_epoch_and_the_terms(few_digits: RawData, tmp_path: Path) -> None:
    recipe = dataclasses.replace(replace_at(DHM, "optim.lr", 1e6), epochs=30)
    path = tmp_path / "run.pt"
    with pytest.raises(NotFiniteError) as caught:
        fit(recipe, 0, Runtime(checkpoint=path, checkpoint_every=0), data=few_digits)
    done = len(checkpoint.load(path)["history"]) if path.exists() else 0
    assert f"the loss is not finite in epoch {done} (steps {3 * done} to {3 * done + 2}): ce/main " in str(caught.value)
    assert all(f"mimic/{pair} " in str(caught.value) for pair in PAIRS)


class Journal(Callback):
    """Writes down what is called, and what it finds then."""

    def __init__(self, name: str, lines: list[tuple[object, ...]], path: Path) -> None:
        self.name, self.lines, self.path = name, lines, path

    def on_start(self, training: Training) -> None:
        self.lines.append((self.name, "start", training.epoch))

    def on_step(self, training: Training) -> None:
        self.lines.append((self.name, "step", training.epoch, training.step, training.steps))

    def on_epoch_end(self, training: Training) -> None:
        saved = checkpoint.load(self.path)["history"]
        self.lines.append(
            (self.name, "end", training.history[-1].epoch, len(saved), "test/loss" in saved[-1]["metrics"])
        )


def test_callbacks_are_called_in_order_and_find_the_checkpoint_written(few_digits: RawData, tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = []
    path = tmp_path / "run.pt"
    fit(
        PLAIN,
        0,
        Runtime(checkpoint=path, checkpoint_every=0),
        [Journal(name, lines, path) for name in "ab"],
        few_digits,
    )
    events: list[tuple[object, ...]] = [("start", 0)]
    for epoch in range(2):
        events += [*(("step", epoch, step, 3) for step in (1, 2, 3)), ("end", epoch, epoch + 1, True)]
    assert lines == [(name, *event) for event in events for name in "ab"]


class Saved(Callback):
    """Writes down which epochs were saved when each was over."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch_end(self, training: Training) -> None:
        self.epochs.append(training.saved)


@pytest.mark.parametrize(("every", "saved"), [(0.0, [1, 2, 3, 4]), (600.0, [0, 0, 0, 4])])
def test_epochs_that_end_soon_after_one_another_share_a_checkpoint(
    few_digits: RawData, tmp_path: Path, every: float, saved: list[int]
) -> None:
    noted, path = Saved(), tmp_path / "run.pt"
    runtime = Runtime(checkpoint=path, checkpoint_every=every)
    fit(dataclasses.replace(PLAIN, epochs=4), 0, runtime, [noted], few_digits)
    assert noted.epochs == saved
    assert len(checkpoint.load(path)["history"]) == 4
    assert checkpoint.previous(path).exists() == (every == 0)


def test_nothing_of_a_step_is_left_when_the_next_one_begins(few_digits: RawData) -> None:
    """What is left holds memory at the peak, and lies among the next step's maps."""

    class Look(Callback):
        def __init__(self) -> None:
            self.outputs: list[weakref.ref[torch.Tensor]] = []

        def on_start(self, training: Training) -> None:
            training.network.register_forward_hook(lambda _, __, heads: self.outputs.append(weakref.ref(heads.main)))

        def on_step(self, training: Training) -> None:
            assert self.outputs
            assert [output for output in self.outputs if output() is not None] == []
            assert [name for name, weight in training.network.named_parameters() if weight.grad is not None] == []

    fit(dataclasses.replace(DHM, epochs=1), 0, callbacks=(Look(),), data=few_digits)


def test_bf16_runs_on_a_cpu_and_keeps_weights_and_losses_in_float32(few_digits: RawData) -> None:
    full, low = (fit(replace_at(DHM, "precision", precision), 0, data=few_digits) for precision in ("float32", "bf16"))
    assert low.history[-1].metrics != full.history[-1].metrics
    first_full, first_low = (result.history[0].metrics["train/loss"] for result in (full, low))
    assert first_low == pytest.approx(first_full, rel=0.05)
    assert {tensor.dtype for tensor in low.network.parameters()} == {torch.float32}


def test_validation_is_measured_on_training_images_that_are_not_trained_on(few_digits: RawData) -> None:
    training = Training(replace_at(DHM, "data.val_fraction", 0.2), 0, Runtime(), few_digits)
    assert (len(training.held_out["val"]), len(training.held_out["test"]), training.steps) == (10, 100, 2)
    metrics = evaluate(training)
    assert metrics["val/top1_error"] in [pytest.approx(10 * wrong) for wrong in range(11)]  # of ten images
    assert metrics["val/loss"] != metrics["test/loss"]


def test_settings_of_the_process_are_put_back(few_digits: RawData) -> None:
    threads = torch.get_num_threads()
    seen: list[int] = []

    class Look(Callback):
        def on_start(self, training: Training) -> None:
            seen.append(torch.get_num_threads())
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(PLAIN, 0, Runtime(threads=threads + 1), (Look(),), few_digits)
    assert seen == [threads + 1]
    assert torch.get_num_threads() == threads


def test_the_choice_of_kernels_is_put_back(few_digits: RawData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fit(PLAIN, 0, data=few_digits)
    assert torch.backends.cudnn.benchmark is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "resnet9"}, "unknown architecture 'resnet9'"),
        ({"branches": (BranchSpec(after=3, blocks=(1,)),)}, "no branch can fork after stage 3"),
        ({"data": DataSpec(name="digit")}, r"unknown data set 'digit'\. Did you mean 'digits'\?"),
        ({"terms": (TermSpec(name="mimick"),)}, "unknown loss term 'mimick'"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(dataclasses.replace(DHM, **changes), 0)


def test_ensembles_are_evaluated_where_they_are_asked_for(few_digits: RawData) -> None:
    class Predict(Callback):
        def measure(self, training: Training) -> dict[str, float]:
            ((images, labels),) = training.held_out["test"].batches(1000)
            with torch.inference_mode():
                logits = training.network.eval()(images).stacked()
            means = {"ensemble": logits.mean(0).softmax(-1), "ensemble_softmax": logits.softmax(-1).mean(0)}
            found = {}
            for name, mean in means.items():
                found[f"expected/top1_error/{name}"] = 100 * float((mean.argmax(-1) != labels).double().mean())
                found[f"expected/loss/{name}"] = float(F.nll_loss(mean.log(), labels))
            return found

    result = fit(DHM, 0, Runtime(ensembles=True), (Predict(),), few_digits)
    found = result.history[-1].metrics
    for name in ("top1_error/ensemble", "top1_error/ensemble_softmax", "loss/ensemble", "loss/ensemble_softmax"):
        assert found[f"test/{name}"] == pytest.approx(found[f"expected/{name}"], rel=1e-5)
    assert set(result.class_errors) == {"main", "side1", "side2", "ensemble", "ensemble_softmax"}
    assert result.final["top1_error/ensemble"] == found["test/top1_error/ensemble"]
    without = fit(DHM, 0, data=few_digits).history[-1].metrics
    assert not any("ensemble" in name for name in without)
    assert {name: found[name] for name in without} == without, "they change nothing"
    assert not any("ensemble" in name for name in fit(PLAIN, 0, Runtime(ensembles=True), (), few_digits).final)

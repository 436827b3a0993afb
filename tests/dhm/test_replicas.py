"""Runs with replicas: the same training as one process that averages the gradients of its batches' shares."""

import contextlib
import dataclasses
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dhm.backbones.base import SeededDropout
from dhm.checkpoint import previous
from dhm.data import Batches, DataSet, RawData, load, split
from dhm.diagnostics import Diagnostics
from dhm.engine import fit
from dhm.losses import objective
from dhm.network import build_network
from dhm.optim import learning_rate, set_learning_rate
from dhm.processes import ReplicaError, ReplicaLostError
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe
from dhm.replicas import Replica, check, check_batches
from dhm.steps import steps_of_epoch
from dhm.training import Callback, Result, Runtime, Training

ROOT = Path(__file__).parents[2]
ONE = Recipe(
    arch="resnet8",
    epochs=2,
    data=DataSpec(name="digits", train_size=50, pad=1, flip=True),
    optim=OptimSpec(lr=0.05, batch_size=15, schedule="linear"),  # 15, 15, 15 and 5 images: no share is half of a batch
    branches=(
        BranchSpec(after=1, blocks=(1, 1), fork_probability=0.5),
        BranchSpec(after=2, blocks=(1,), fork_probability=0.5),
    ),
    mimic=MimicSpec(alpha=0.5, random_stop=True),
)
TWO = dataclasses.replace(ONE, replicas=2)


class FirstAlone(Callback):
    """Notes in which processes it is called."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def on_step(self, training: Training) -> None:
        self.pids.add(os.getpid())
        assert training.replica == Replica(0, 2)
        assert len(multiprocessing.active_children()) == 1


@pytest.fixture(scope="module")
def trained(few_digits: RawData) -> Result:
    callback = FirstAlone()
    result = fit(TWO, 3, callbacks=(callback, Diagnostics()), data=few_digits)
    assert callback.pids == {os.getpid()}
    assert not multiprocessing.active_children(), "they end with the run"
    return result


def averaged(data: DataSet) -> tuple[Training, list[float]]:
    """The same training in one process: of each batch two shares in turn, and the mean of their gradients over the
    batch. Running statistics are those of the first share."""
    training = Training(ONE, 3, Runtime(), data)
    network, optimiser, curve = training.network, training.optimiser, []
    for epoch in range(ONE.epochs):
        network.train()
        total, images = 0.0, 0
        steps = steps_of_epoch(ONE, 3, epoch, training.steps)
        for step, (batch, labels) in zip(steps, training.batches.epoch(3, epoch), strict=True):
            set_learning_rate(optimiser, learning_rate(ONE.optim, epochs=ONE.epochs, moment=step.moment))
            optimiser.zero_grad(set_to_none=True)
            for part, truth in list(zip(batch.tensor_split(2), labels.tensor_split(2), strict=True))[::-1]:
                before = {name: value.clone() for name, value in network.named_buffers()}
                loss = objective(network(part, step.heads), truth, ONE, step)
                (loss.total * len(part) / len(batch)).backward()
                total += float(loss.total.detach()) * len(part)
                if part.data_ptr() != batch.data_ptr():
                    for name, value in network.named_buffers():
                        value.copy_(before[name])
            optimiser.step()
            images += len(batch)
        curve.append(total / images)
    return training, curve


def test_two_replicas_train_as_one_process_that_averages_the_gradients_of_the_shares(
    trained: Result, few_digits: RawData
) -> None:
    reference, curve = averaged(few_digits)
    found = trained.network.state_dict()
    for name, value in reference.network.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert [record.metrics["train/loss"] for record in trained.history] == pytest.approx(curve, rel=1e-5)
    forked = {name for name in trained.history[0].metrics if name.startswith("loss/ce/")}
    assert forked == {"loss/ce/main", "loss/ce/side1", "loss/ce/side2"}


def test_shares_matter(trained: Result, few_digits: RawData) -> None:
    alone = fit(ONE, 3, data=few_digits)
    assert alone.history[0].metrics["train/loss"] != pytest.approx(trained.history[0].metrics["train/loss"], rel=1e-4)


class KillAnother(Callback):
    def on_step(self, training: Training) -> None:
        if (training.epoch, training.step) == (1, 2):
            (other,) = multiprocessing.active_children()
            other.kill()


def test_a_killed_replica_ends_the_run_which_resumes_to_the_same_bits(
    trained: Result, few_digits: RawData, tmp_path: Path
) -> None:
    runtime = Runtime(checkpoint=tmp_path / "run.ckpt", checkpoint_every=0)
    with pytest.raises(ReplicaLostError, match=r"replica-1 was killed by SIGKILL"):
        fit(TWO, 3, runtime, (KillAnother(),), few_digits)
    assert not multiprocessing.active_children()
    resumed = fit(TWO, 3, runtime, (Diagnostics(),), few_digits)
    assert [record.epoch for record in resumed.history] == [0, 1]
    assert resumed.history[1].metrics["train/loss"] == trained.history[1].metrics["train/loss"]
    for name, value in trained.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert resumed.final == trained.final


def test_three_replicas_resume_to_the_same_bits(few_digits: RawData, tmp_path: Path) -> None:
    """The order of a sum of three shows; where all branches fork, torch would change it after the first step."""
    always = tuple(dataclasses.replace(branch, fork_probability=1.0) for branch in ONE.branches)
    recipe = dataclasses.replace(ONE, replicas=3, branches=always)
    whole = fit(recipe, 3, Runtime(checkpoint=tmp_path / "run.ckpt", checkpoint_every=0), data=few_digits)
    first_epoch = previous(tmp_path / "run.ckpt")
    resumed = fit(recipe, 3, Runtime(checkpoint=first_epoch, checkpoint_every=0), data=few_digits)
    assert [record.metrics for record in resumed.history] == [record.metrics for record in whole.history]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


@dataclasses.dataclass(frozen=True, eq=False)
class BrokenElsewhere(RawData):
    """Opens for the first replica alone."""

    def open(self, *arguments: object, replica: Replica, **named: object) -> object:
        if replica.index:
            raise torch.OutOfMemoryError("no room for images")
        return super().open(*arguments, replica=replica, **named)


def test_what_fails_in_a_replica_fails_the_run(few_digits: RawData) -> None:
    fields = {field.name: getattr(few_digits, field.name) for field in dataclasses.fields(RawData)}
    with pytest.raises(torch.OutOfMemoryError, match=r"no room for images \(in replica-1\)\nTraceback"):
        fit(TWO, 0, data=BrokenElsewhere(**fields))
    assert not multiprocessing.active_children()


def not_importable(path: str) -> None:
    raise AssertionError(path)


def test_a_replica_that_cannot_read_its_task_fails_the_run(
    few_digits: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where it starts again, a process cannot import what only this one knows.
    monkeypatch.setattr(BrokenElsewhere, "__reduce__", lambda self: (not_importable, ("made up",)))
    fields = {field.name: getattr(few_digits, field.name) for field in dataclasses.fields(RawData)}
    with pytest.raises(ReplicaError, match=r"AssertionError: made up \(in replica-1\)"):
        fit(TWO, 0, data=BrokenElsewhere(**fields))


KILLED_ITSELF = """
import multiprocessing, os, signal
from dhm.engine import fit
from dhm.training import Callback
from tests.dhm.test_replicas import TWO

class Kill(Callback):
    def on_step(self, training):
        (other,) = multiprocessing.active_children()
        print(other.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    fit(TWO, 0, callbacks=(Kill(),))
"""


def test_no_replica_outlives_the_first(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED_ITSELF)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.05)
        pytest.fail("it goes on")


@given(batch=st.integers(1, 40), count=st.integers(1, 8))
def test_shares_make_up_the_batch_and_weights_its_mean(batch: int, count: int) -> None:
    images = torch.arange(batch, dtype=torch.float64)
    replicas = [Replica(index, count) for index in range(count)]
    shares = [replica.share(images) for replica in replicas]
    assert torch.equal(torch.cat(shares), images)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    if batch >= count:
        means = [r.weight(len(share), batch) * share.mean() for r, share in zip(replicas, shares, strict=True)]
        assert float(sum(means) / count) == pytest.approx(float(images.mean()))


def test_replicas_see_the_batches_that_one_process_sees(few_digits: RawData) -> None:
    train = split(few_digits, ONE.data, 0).train
    whole, *shares = (
        list(Batches(train, ONE.data, batch_size=15, replica=replica).epoch(0, 1))
        for replica in (Replica(), Replica(0, 2), Replica(1, 2))
    )
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_replicas_decode_the_shares_of_the_batches_that_one_process_decodes(tmp_path: Path, workers: int) -> None:
    draws = np.random.default_rng(0)
    for number in range(14):
        file = tmp_path / ("train" if number < 10 else "test") / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (14, 17, 3), dtype=np.uint8)).save(file)
    spec = DataSpec(name="image_folder", augment="resized_crop", image_size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    data = load(spec, tmp_path)
    whole, *shares = (
        list(data.open(spec, 0, batch_size=4, workers=workers, replica=replica).train.epoch(0, 1))
        for replica in (Replica(), Replica(0, 2), Replica(1, 2))
    )
    assert [len(labels) for _, labels in whole] == [4, 4, 2]
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        assert [len(part[1]) for part in parts] == [len(labels) // 2] * 2
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


WAITS_IN_VAIN = """
import multiprocessing, time
from dhm import processes
from dhm.processes import replicated
from tests.dhm.test_replicas import nothing

if __name__ == "__main__":
    processes.GRACE = 0.5
    with replicated(2, "cpu", nothing):
        multiprocessing.active_children()[0].kill()
        time.sleep(600)
"""


def nothing(replica: Replica) -> None:
    pass


def test_the_first_replica_does_not_wait_for_ever_for_one_that_is_gone(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS_IN_VAIN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "a replica is gone, and the run waits for it in vain" in done.stderr


def test_replicas_drop_out_by_draws_of_their_own() -> None:
    recipe = dataclasses.replace(ONE, arch="wrn_10_1", dropout=0.3, branches=(), mimic=None)
    network = build_network(recipe, in_channels=1, num_classes=10, seed=0)
    draws = []
    for replica in ({}, {"replica": 0}, {"replica": 1}):
        network.seed_dropout(0, 4, torch.device("cpu"), **replica)
        layer = next(part for part in network.modules() if isinstance(part, SeededDropout))
        draws.append(layer.train()(torch.ones(100)))
    assert torch.equal(draws[0], draws[1]), "the first replica's are those of a run without"
    assert not torch.equal(draws[0], draws[2])


def test_devices() -> None:
    assert [Replica(index, 3).device("cuda") for index in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert Replica(1, 2).device("cuda:2") == "cuda:3"
    assert Replica(1, 2).device("cpu") == "cpu"
    assert Replica().device("cuda") == "cuda"


def test_mistakes(few_digits: RawData) -> None:
    synchronised = dataclasses.replace(TWO, sync_batch_norm=True)
    with pytest.raises(ValueError, match="sync_batch_norm=true needs GPUs"):
        fit(synchronised, 0, data=few_digits)
    check(synchronised, "cuda")
    with pytest.raises(ValueError, match="give replicas=2"):
        check(dataclasses.replace(synchronised, replicas=1), "cuda")
    check_batches(TWO, 50)
    with pytest.raises(ValueError, match=r"46 images by optim.batch_size=15 has 1, fewer than replicas=2"):
        check_batches(TWO, 46)
    with pytest.raises(ValueError, match="has 5, fewer than replicas=6"):
        check_batches(dataclasses.replace(ONE, replicas=6), 50)
    with pytest.raises(ValueError, match="replicas=0: must be at least 1"):
        dataclasses.replace(ONE, replicas=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="need 2 GPUs, and torch sees 0"):
            fit(TWO, 0, Runtime(device="cuda"), data=few_digits)


def test_diagnostics_are_measured_by_the_first_alone(trained: Result) -> None:
    for record in trained.history:
        cosine = record.metrics["diagnostics/gradient_cosine_ce/main.side1"]
        assert math.isfinite(cosine) and -1 <= cosine <= 1


def test_a_run_whose_replica_is_gone_does_not_go_on() -> None:
    gone = threading.Event()
    first = Replica(0, 2, gone)
    first.require_all()
    Replica().require_all()
    gone.set()
    with pytest.raises(RuntimeError, match="another replica is gone"):
        first.require_all()

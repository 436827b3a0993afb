import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dhm import checkpoint
from dhm.checkpoint import DamagedError, load, load_newest, previous, remove, save
from dhm.data import RawData
from dhm.engine import fit, train_one_epoch
from dhm.fields import replace_at
from dhm.recipe import DataSpec, OptimSpec, Recipe
from dhm.training import Callback, EpochRecord, Runtime, Training

RECIPE = Recipe(arch="resnet8", epochs=2, data=DataSpec(name="digits", train_size=20), optim=OptimSpec(batch_size=10))


def state(number: int) -> dict[str, Any]:
    return {"number": number, "weights": torch.arange(4.0) + number, "history": [{"epoch": 0, "metrics": {"a": 1.5}}]}


def saved_number(path: Path) -> int:
    number: int = load(path)["number"]
    return number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run.pt"


def test_a_state_comes_back_as_it_was(path: Path) -> None:
    save(path, state(3))
    back = load(path)
    assert torch.equal(back.pop("weights"), state(3)["weights"])
    assert back == {"number": 3, "history": [{"epoch": 0, "metrics": {"a": 1.5}}]}
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def test_the_one_before_is_kept(path: Path) -> None:
    for number in range(3):
        save(path, state(number))
    assert saved_number(path) == 2
    assert saved_number(previous(path)) == 1


@pytest.mark.parametrize("broken", ["fsync", "write", "replace"])
def test_a_save_that_dies_leaves_the_old_state(broken: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, state(0))
    save(path, state(1))

    def die(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if broken == "fsync":
            patch.setattr(os, "fsync", die)
        elif broken == "write":
            patch.setattr(torch, "save", die)
        else:
            patch.setattr(Path, "replace", die)
        with pytest.raises(OSError, match="no space left"):
            save(path, state(2))
    newest, problems = load_newest(path)
    assert newest is not None
    assert (newest["number"], problems) == (1, [])
    save(path, state(2))
    assert (saved_number(path), saved_number(previous(path))) == (2, 1)


def test_a_save_that_dies_between_its_two_renames_leaves_the_old_state(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(path, state(1))
    whole = Path.replace

    def only_the_first(source: Path, target: Path) -> Path:
        if source != path:
            raise KeyboardInterrupt
        return whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", only_the_first)
        with pytest.raises(KeyboardInterrupt):
            save(path, state(2))
    assert not path.exists()
    newest, _ = load_newest(path)
    assert newest is not None
    assert newest["number"] == 1


def test_a_file_is_whole_on_the_disk_before_it_takes_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, whole = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("fsync"), sync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda source, target: (events.append(target.name), whole(source, target))[1])
    save(path, state(0))
    save(path, state(1))
    assert events == ["fsync", "run.pt", "fsync", "fsync", "run.pt.previous", "run.pt", "fsync"]  # file, names, folder


def cut_short(content: bytes, keep: float) -> bytes:
    return content[: int(len(content) * keep)]


def flipped(content: bytes, place: float) -> bytes:
    index = min(int(len(content) * place), len(content) - 1)
    return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


@pytest.mark.parametrize("keep", [0, 0.01, 0.03, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_found(keep: float, path: Path) -> None:
    save(path, state(0))
    path.write_bytes(cut_short(path.read_bytes(), keep))
    with pytest.raises(DamagedError, match=r"run\.pt is damaged: its checksum does not hold"):
        load(path)


@pytest.mark.parametrize("place", [0, 0.01, 0.02, 0.03, 0.3, 0.7, 1])
def test_a_flipped_bit_is_found(place: float, path: Path) -> None:
    save(path, state(0))
    path.write_bytes(flipped(path.read_bytes(), place))
    with pytest.raises(DamagedError):
        load(path)


def test_bytes_behind_the_end_are_found(path: Path) -> None:
    save(path, state(0))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DamagedError):
        load(path)


def test_a_damaged_file_falls_back_to_the_one_before_and_says_so(path: Path) -> None:
    save(path, state(0))
    save(path, state(1))
    path.write_bytes(b"")
    newest, problems = load_newest(path)
    assert newest is not None
    assert newest["number"] == 0
    assert problems == [f"{path} is damaged: its checksum does not hold"]


def test_nothing_is_left_where_both_are_damaged(path: Path) -> None:
    save(path, state(0))
    save(path, state(1))
    for file in (path, previous(path)):
        file.write_bytes(cut_short(file.read_bytes(), 0.9))
    newest, problems = load_newest(path)
    assert newest is None
    assert len(problems) == 2


def test_no_checkpoint_is_no_problem(path: Path) -> None:
    assert load_newest(path) == (None, [])
    with pytest.raises(FileNotFoundError):
        load(path)


def test_removing_takes_both_and_may_find_none(path: Path) -> None:
    save(path, state(0))
    save(path, state(1))
    remove(path)
    assert list(path.parent.iterdir()) == []
    remove(path)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_loading_runs_no_code_from_the_file(path: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"number": Bomb(tmp_path / "boom")}, buffer)
    path.parent.mkdir()
    path.write_bytes(checkpoint.MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(DamagedError, match="holds what no checkpoint holds"):
        load(path)
    assert not (tmp_path / "boom").exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "boom").exists()  # the bomb is a real one


def trained(path: Path, data: RawData, epochs: int = 1) -> Training:
    """A run whose checkpoint stands after so many epochs, with weights of its own making."""
    training = Training(RECIPE, 0, Runtime(checkpoint=path, checkpoint_every=0), data)
    for epoch in range(epochs):
        for parameter in training.network.parameters():
            parameter.data.fill_(epoch + 1.0)
        training.history.append(EpochRecord(epoch, 1.0, {"test/top1_error": 50.0}))
        training.save()
    return training


def stem(training: Training) -> float:
    return float(training.network.backbone.stem[0].weight.detach().mean())


def test_a_run_takes_up_its_checkpoint(path: Path, few_digits: RawData) -> None:
    trained(path, few_digits)
    again = Training(RECIPE, 0, Runtime(checkpoint=path), few_digits)
    assert (again.epoch, stem(again), again.notes) == (1, 1.0, [])
    assert again.history == [EpochRecord(0, 1.0, {"test/top1_error": 50.0})]


@pytest.mark.parametrize("channels_last", [False, True])
def test_momenta_lie_as_the_weights_do_in_whatever_layout_a_run_goes_on(
    channels_last: bool, path: Path, few_digits: RawData
) -> None:
    """A fused step goes through both in the order of memory."""
    before = Runtime(checkpoint=path, checkpoint_every=0, channels_last=not channels_last)
    first = Training(RECIPE, 0, before, few_digits)
    train_one_epoch(first)
    first.history.append(EpochRecord(0, 1.0, {"test/top1_error": 50.0}))
    first.save()
    again = Training(RECIPE, 0, Runtime(checkpoint=path, channels_last=channels_last), few_digits)
    assert again.epoch == 1
    saved = load(path)["optimiser"]["state"]
    for index, (parameter, kept) in enumerate(again.optimiser.state.items()):
        momentum = kept["momentum_buffer"]
        assert momentum.stride() == parameter.stride()
        assert torch.equal(momentum, saved[index]["momentum_buffer"])


def test_a_run_takes_up_the_one_before_where_the_last_is_damaged(path: Path, few_digits: RawData) -> None:
    trained(path, few_digits, epochs=2)
    path.write_bytes(flipped(path.read_bytes(), 0.5))
    again = Training(RECIPE, 0, Runtime(checkpoint=path), few_digits)
    assert (again.epoch, stem(again)) == (1, 1.0)
    assert again.notes == [f"{path} is damaged: its checksum does not hold"]


def test_a_run_starts_again_where_none_is_left(path: Path, few_digits: RawData) -> None:
    fresh = stem(Training(RECIPE, 0, Runtime(), few_digits))
    trained(path, few_digits)
    path.write_bytes(b"nothing")
    again = Training(RECIPE, 0, Runtime(checkpoint=path), few_digits)
    assert (again.epoch, stem(again)) == (0, fresh)
    assert again.notes[1:] == ["no checkpoint is left: started again from the first epoch"]


@pytest.mark.parametrize("other", ["recipe", "seed", "data"])
def test_a_checkpoint_of_another_run_is_not_taken_up(
    other: str, path: Path, few_digits: RawData, digits: RawData
) -> None:
    trained(path, few_digits)
    recipe = replace_at(RECIPE, "optim.lr", 0.2) if other == "recipe" else RECIPE
    seed = 1 if other == "seed" else 0
    data = digits if other == "data" else few_digits
    fresh = Training(recipe, seed, Runtime(), data)
    again = Training(recipe, seed, Runtime(checkpoint=path), data)
    assert (again.epoch, stem(again)) == (0, stem(fresh))
    assert again.notes == [f"{path} belongs to another run: started from the first epoch"]


def test_a_run_without_a_checkpoint_path_writes_nothing(
    few_digits: RawData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Training(RECIPE, 0, Runtime(), few_digits).save()
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_no_piece_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, state(0))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, state(1))
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def test_a_run_in_channels_last_goes_on_to_the_same_bits(tmp_path: Path, few_digits: RawData) -> None:
    whole = fit(RECIPE, 0, Runtime(channels_last=True), data=few_digits)
    runtime = Runtime(channels_last=True, checkpoint=tmp_path / "run.pt")

    class Leave(Callback):
        def on_epoch_end(self, training: Training) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, 0, runtime, [Leave()], few_digits)
    resumed = fit(RECIPE, 0, runtime, data=few_digits)
    convolution = next(p for p in resumed.network.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name

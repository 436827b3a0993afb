"""What the local pool does beyond the contract of `tests/engines/test_contract.py`: forks, devices, its end."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.pool import Ended, Slot, Word
from experiments.pools.local import LocalPool
from experiments.pools.parts.gpus import choose_gpus, slots
from tests.experiments.jobs import work

ROOT = Path(__file__).parents[2]
PATIENCE = 60


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    made = LocalPool(slots([], 1, 2), work)
    yield made
    made.close()


def start(pool: LocalPool, log: Path, **jobs: int) -> None:
    for do, index in jobs.items():
        pool.start(pool.slots[index], {"do": do.rstrip("_0123456789")}, str(log))


def events(pool: LocalPool, ends: int) -> list[Word | Ended]:
    """All events until so many runs have ended."""
    seen: list[Word | Ended] = []
    deadline = time.monotonic() + PATIENCE
    while sum(isinstance(event, Ended) for event in seen) < ends:
        assert time.monotonic() < deadline, f"only {seen}"
        seen += pool.wait(0.5)
    return seen


def ended(pool: LocalPool) -> Ended:
    (end,) = [event for event in events(pool, 1) if isinstance(event, Ended)]
    return end


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_a_run_says_word_and_returns_its_outcome(pool: LocalPool, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    start(pool, log, report=0)
    word, end = events(pool, 1)
    assert isinstance(word, Word) and word.content["pid"] != os.getpid()
    assert isinstance(end, Ended) and end.slot == pool.slots[0] and end.lost is None
    assert end.outcome["torch"], "the fork server has loaded torch"
    assert not end.outcome["cuda_started"]
    assert log.read_text() == "printed by report\n"


def test_a_run_does_not_import_the_callers_main_module(pool: LocalPool, tmp_path: Path) -> None:
    start(pool, tmp_path / "log", report=0)
    end = ended(pool)
    assert end.outcome["main"] == "__main__"
    assert sys.modules["__main__"].__dict__, "and the caller's is as it was"


def test_gpu_slots_of_a_made_up_list_see_their_own_device(tmp_path: Path) -> None:
    places = slots(["0", "3", "GPU-ab12"], 2, 1)
    assert [slot.visible for slot in places] == ["0", "3", "GPU-ab12"] * 2, "runs spread over GPUs first"
    assert {slot.device for slot in places} == {"cuda"}
    pool = LocalPool(places, work)
    try:
        for slot in pool.slots:
            pool.start(slot, {"do": "report"}, str(tmp_path / "log"))
        ends = [event for event in events(pool, len(places)) if isinstance(event, Ended)]
    finally:
        pool.close()
    assert {end.slot.index: end.outcome["visible"] for end in ends} == {s.index: s.visible for s in places}


def test_cpu_slots_see_no_gpu(pool: LocalPool, tmp_path: Path) -> None:
    start(pool, tmp_path / "log", report=1)
    assert ended(pool).outcome["visible"] == ""


def test_a_slot_may_leave_the_choice_of_gpus_to_whoever_made_it(tmp_path: Path) -> None:
    pool = LocalPool([Slot(index=0, device="cuda", visible=None)], work)
    try:
        start(pool, tmp_path / "log", report=0)
        assert ended(pool).outcome["visible"] == os.environ.get("CUDA_VISIBLE_DEVICES")
    finally:
        pool.close()


def test_a_run_ends_with_its_scheduler(tmp_path: Path) -> None:
    script = (
        "from experiments.pools.parts.gpus import slots\n"
        "from experiments.pools.local import LocalPool\n"
        "from tests.experiments.jobs import work\n"
        "pool = LocalPool(slots([], 1, 1), work)\n"
        f"pool.start(pool.slots[0], {{'do': 'wait'}}, {str(tmp_path / 'log')!r})\n"
        "words = []\n"
        "while not words:\n"
        "    words = pool.wait(0.5)\n"
        "print(words[0].content['pid'], flush=True)\n"
        "pool.wait(600)\n"
    )
    scheduler = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert scheduler.stdout is not None
    pid = int(scheduler.stdout.readline())
    assert alive(pid)
    scheduler.kill()
    scheduler.wait()
    assert gone_within(pid, 10)


def test_choosing_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_gpus("auto") == choose_gpus("all") == ["0", "1", "2", "3"]
    assert choose_gpus(2) == ["0", "1"]
    assert choose_gpus([1, "3"]) == ["1", "3"]
    assert choose_gpus("none") == choose_gpus(0) == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert choose_gpus("all") == ["5", "7"], "the numbers that the user gave stay in force"


@pytest.mark.parametrize(
    ("count", "asked", "words"),
    [
        (0, "all", ["torch sees none"]),
        (0, 1, ["torch sees none"]),
        (2, 3, ["has 2"]),
        (2, [5], ["5", "0, 1"]),
        (2, "some", ["some", "auto"]),
        (2, [], ["0, 1"]),
    ],
)
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, count: int, asked: Any, words: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ValueError) as caught:
        choose_gpus(asked)
    for word in words:
        assert word in str(caught.value)

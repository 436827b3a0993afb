"""Pools are found by their files; what their settings come to on clusters, without one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments import config, pools
from experiments.pool import Slot, Word
from experiments.pools import ray, slurm
from experiments.pools.parts import agent
from experiments.pools.parts.agent import _Session
from experiments.pools.parts.arrangement import Arrangement, PoolConfig
from experiments.trial import Note, Opened, Progress
from tests.engines.jobs import work

Nodes = list[dict[str, float]]
NODE = {"CPU": 16.0, "GPU": 2.0}


def asked_for(name: str, words: str = "") -> tuple[Any, int]:
    """Settings of a pool, and the replicas of a run."""
    asked = config.pool_of(config.read([f"pool={name}", *(f"pool.{word}" for word in words.split())]))
    return asked, asked.gpus_per_run or 1


def test_a_pool_is_a_file() -> None:
    files = {path.stem for path in Path(pools.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(pools.names()) == files >= {"local", "slurm", "ray"}
    for name in files:
        asked, replicas = asked_for(name)
        assert isinstance(asked, PoolConfig) and (asked.kind, replicas) == (name, 1)


def test_settings_of_a_pool_are_counted() -> None:
    for word in ("slots=0", "cells_per_job=0", "slots_per_gpu=auto", "threads=0"):
        name, _, value = word.partition("=")
        with pytest.raises(ValueError, match=rf"pool\.{name}={value}"):
            pools.arrange(*asked_for("slurm", word))


class OneStudy:
    """Takes Ray's place, and keeps what an actor would have of a node."""

    shares: list[Mapping[str, float]]

    def __init__(self, study: str, folder: Path, share: Mapping[str, float]) -> None:
        self.shares.append(share)

    def look(self, numbers: object) -> dict[str, bool]:
        return {}

    def strays(self) -> list[str]:
        return []

    def cancel(self, numbers: object) -> None: ...

    def close(self) -> None: ...


def on_ray(words: str, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Arrangement:
    monkeypatch.setattr(ray, "connect", lambda address: nodes)
    return pools.arrange(*asked_for("ray", words))


@pytest.mark.parametrize(
    ("words", "nodes", "expected"),  # slots; processors and GPUs of each
    [
        ("", [NODE, NODE], (4, 1, 1)),
        ("slots_per_gpu=2", [NODE, NODE], (8, 1, 0.5)),
        ("slots_per_gpu=10", [{"CPU": 64.0, "GPU": 1.0}], (10, 1, 0.1)),
        ("slots_per_gpu=10", [NODE], (16, 1, 0.1)),  # no more than there are processors
        ("slots_per_gpu=2 cells_per_job=3", [NODE], (12, 1, 0.5)),
        ("slots_per_gpu=2 slots=5", [NODE], (5, 1, 0.5)),
        ("gpus_per_run=2", [NODE, {"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0}], (1, 1, 2)),  # those of one node
        ("gpus=none threads=3", [NODE, NODE], (10, 3, 0)),
        ("threads=2", [{"CPU": 5.0}], (2, 2, 0)),
    ],
)
def test_runs_on_ray_have_their_share_of_a_node(
    words: str, nodes: Nodes, expected: tuple[int, float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneStudy, "shares", [], raising=False)
    monkeypatch.setattr(ray, "Ray", OneStudy)
    arranged = on_ray(words, nodes, monkeypatch)
    slots, cpus, gpus = expected
    assert [slot.index for slot in arranged.slots] == list(range(slots))
    kind, workers = ("ray gpu", 4) if gpus else ("ray cpu", 0)
    assert ({slot.name for slot in arranged.slots}, arranged.workers) == ({kind}, workers)
    pool = arranged.open(tmp_path, work)
    pool.begin("study", lambda job: True)
    pool.close()
    assert OneStudy.shares == [{"num_cpus": cpus, "num_gpus": gpus}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("gpus_per_run=3", "a run of 1 CPU(s) and 3 GPU(s); they have 16 and 2, 16 and 2: give less"),
        ("gpus_per_run=2 slots_per_gpu=2", "pool.slots_per_gpu=2: on Ray a run of 2 GPUs shares none"),
        ("gpus=2", "give auto or none"),
        ("slots=0", "pool.slots=0: must be at least 1"),
    ],
)
def test_what_a_ray_cluster_cannot_give(words: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError) as caught:
        on_ray(words, [NODE, NODE], monkeypatch)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("words", "gpus", "cpus"),
    [
        ("", None, 1),
        ("threads=3", None, 3),
        ("gpus_per_run=1", 1, 5),  # four that decode images
        ("gpus_per_run=1 slots_per_gpu=2", 1, 10),  # two runs share the job's GPU
        ("gpus_per_run=4 workers=3", 4, 7),  # a process for each replica
        ("gpus_per_run=4 slots_per_gpu=2 workers=3 threads=2", 4, 22),
    ],
)
def test_gpus_and_processors_of_a_slurm_job(words: str, gpus: int | None, cpus: int) -> None:
    asked, replicas = asked_for("slurm", words)
    flags = slurm.flags(asked, replicas)
    assert (flags["gpus_per_node"], flags["cpus_per_task"]) == (gpus, cpus)
    arranged = pools.arrange(asked, replicas)
    assert {slot.name for slot in arranged.slots} == {"slurm cpu" if gpus is None else "slurm gpu"}


def session_of_one() -> _Session:
    """An agent's session with one run in its slot, as far as hearing goes."""
    session = object.__new__(_Session)
    session._running, session._epochs, session._told, session._unsent = {0: "cell"}, {}, {}, []
    return session


SLOT = Slot(index=0, device="cpu", visible="")


def test_a_resumed_run_that_has_a_record_has_not_got_further_by_that() -> None:
    """Its program would have itself started again for ever, where no epoch fits into the limit."""
    session = session_of_one()
    for word in (Opened("run"), Note("resumed"), Progress(5, 20, 9.0, 1.0)):
        session._hear(Word(SLOT, word))
    assert session._epochs == {"cell": {5}}
    session._hear(Word(SLOT, Progress(6, 20, 9.0, 2.0)))
    assert session._epochs == {"cell": {5, 6}}


def test_an_engine_is_told_of_every_epoch_and_of_few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word is a file in the shared folder."""
    now = 0.0
    monkeypatch.setattr(agent.time, "monotonic", lambda: now)
    session = session_of_one()
    words = [(0, 0.0), *((0, part / 10) for part in range(1, 10)), (1, 0.0), (2, 0.0), (2, 0.1), (2, 0.9)]
    for now, (epoch, part) in zip(range(100, 1000, 10), words, strict=False):  # noqa: B007  # it is the clock
        session._hear(Word(SLOT, Progress(epoch, 20, 9.0, 1.0, part)))
    told = [(word.epoch, word.part) for _, word in session._unsent]
    assert told == [(0, 0.0), (0, 0.3), (0, 0.6), (0, 0.9), (1, 0.0), (2, 0.0)]

"""The contract that every pool keeps: a run ends with its outcome or is told lost, once, and its slot is free again.

A pool is found by its file and held to it. One that needs a cluster stands in CLUSTERS too.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import config, pools
from experiments.pool import Ended, Placed, Pool, Slot, Stopped, Word
from experiments.pools.parts.engine_pool import EnginePool
from experiments.pools.ray import connect
from tests.engines.jobs import work
from tests.engines.servers import ROOT, RayCluster, wait_for

PATIENCE = 300
CLUSTERS = {"slurm": "slurm", "ray": "ray_cluster"}  # fixtures, by pool
ENGINES = [pytest.param(name, marks=pytest.mark.engines) for name in pools.names() if name in CLUSTERS]
HERE = [name for name in pools.names() if name not in CLUSTERS]
Open = Callable[..., Pool]


def everything(job: Any) -> bool:
    return True


@pytest.fixture(params=[*HERE, *ENGINES])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_with(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens pools of one kind for one study, with some settings; they are closed at the end."""
    cluster = request.getfixturevalue(CLUSTERS[kind]) if kind in CLUSTERS else None
    made: list[Pool] = []

    def make(**settings: Any) -> Pool:
        given = {"address": cluster.address, **settings} if hasattr(pools.config_of(kind), "address") else settings
        asked = config.pool_of(config.read([f"pool={kind}", *(f"pool.{name}={given[name]}" for name in given)]))
        made.append(pools.arrange(asked, asked.gpus_per_run or 1).open(tmp_path, work))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture
def open_pool(kind: str, open_with: Open) -> Open:
    """Opens pools with so many slots on the CPU."""

    def make(count: int = 2, **settings: Any) -> Pool:
        asked = {"slots": count, "cpu_slots": count, "gpus": "none", **settings}
        pool = open_with(**{name: asked[name] for name in asked if hasattr(pools.config_of(kind), name)})
        assert len(pool.slots) == count
        return pool

    return make


@pytest.fixture
def pool(open_pool: Open) -> Pool:
    made = open_pool()
    assert made.begin("contract", everything) == {}
    return made


def start(pool: Pool, index: int, do: str, folder: Path, tag: str = "") -> Path:
    tag = tag or f"{do}-{index}"
    log = folder / "logs" / f"{tag}.log"
    pool.start(pool.slots[index], {"do": do, "tag": tag, "gate": str(folder / "gate")}, str(log))
    return log


def events(pool: Pool, enough: Callable[[list[Any]], bool]) -> list[Any]:
    seen: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while not enough(seen):
        assert time.monotonic() < deadline, f"only {seen}"
        seen += pool.wait(0.5)
    return seen


def ends(pool: Pool, count: int) -> dict[int, Ended]:
    seen = events(pool, lambda seen: sum(isinstance(event, Ended) for event in seen) >= count)
    found = [event for event in seen if isinstance(event, Ended)]
    assert len({event.slot.index for event in found}) == len(found) == count, "each is told once"
    return {event.slot.index: event for event in found}


def words(pool: Pool, count: int) -> list[Word]:
    seen = events(pool, lambda seen: sum(isinstance(event, Word) for event in seen) >= count)
    assert not any(isinstance(event, Ended) for event in seen)
    return [event for event in seen if isinstance(event, Word)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_a_run_says_word_and_returns_its_outcome(pool: Pool, tmp_path: Path) -> None:
    log = start(pool, 0, "report", tmp_path)
    seen = events(pool, lambda seen: any(isinstance(event, Ended) for event in seen))
    (word,) = [event for event in seen if isinstance(event, Word)]
    assert word.slot == pool.slots[0] and word.content["pid"] != os.getpid()
    end = seen[-1]
    assert isinstance(end, Ended) and end.slot == pool.slots[0] and end.lost is None
    assert end.outcome == {"tag": "report-0", "pid": word.content["pid"]}
    assert log.read_text() == "printed by report-0\n"


def test_runs_that_die_are_told_lost_and_take_nobody_with_them(pool: Pool, tmp_path: Path) -> None:
    start(pool, 0, "die", tmp_path)
    start(pool, 1, "report", tmp_path)
    found = ends(pool, 2)
    assert found[0].outcome is None and "SIGKILL" in str(found[0].lost)
    assert found[1].lost is None and found[1].outcome["tag"] == "report-1"
    log = start(pool, 0, "fail", tmp_path)
    start(pool, 1, "leave", tmp_path)
    found = ends(pool, 2)
    assert (found[0].lost, found[1].lost) == ("exited with code 1", "exited with code 7"), "slots can be used again"
    assert "an error that nobody caught" in log.read_text()


def test_stop_reaches_one_run_or_all(pool: Pool, tmp_path: Path) -> None:
    for index in (0, 1):
        start(pool, index, "until_released", tmp_path)
    words(pool, 2)
    pool.stop(pool.slots[1])
    assert ends(pool, 1)[1].outcome == Stopped()
    pool.stop()
    assert ends(pool, 1)[0].outcome == Stopped()


def test_close_leaves_no_process(pool: Pool, tmp_path: Path) -> None:
    start(pool, 0, "until_released", tmp_path)
    (word,) = words(pool, 1)
    pool.close()
    assert gone(word.content["pid"])


@pytest.mark.parametrize("kind", ENGINES, indirect=True)
def test_more_runs_than_the_engine_has_room_for_wait_their_turn(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(6)
    pool.begin("contract", everything)
    for index in range(6):
        start(pool, index, "until_released", tmp_path)
    seen = events(pool, lambda seen: sum(isinstance(event, Word) for event in seen) >= 4)
    queued = {event.slot.index for event in seen if isinstance(event, Placed) and event.queued}
    running = {event.slot.index for event in seen if isinstance(event, Word)}
    assert len(running) == 4 and queued - running == set(range(6)) - running, "two nodes of two processors"
    waiting = next(iter(set(range(6)) - running))
    pool.stop(pool.slots[waiting])
    assert "taken out of the queue" in str(ends(pool, 1)[waiting].lost)
    (tmp_path / "gate").touch()
    assert {end.outcome["tag"] for end in ends(pool, 5).values()} == {
        f"until_released-{index}" for index in range(6) if index != waiting
    }


@pytest.mark.parametrize("kind", ENGINES, indirect=True)
def test_jobs_of_one_program_follow_each_other(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(3, cells_per_job=3)
    pool.begin("contract", everything)
    for index, do in enumerate(("report", "die", "report")):
        start(pool, index, do, tmp_path)
    found = ends(pool, 3)
    assert [found[index].lost is None for index in range(3)] == [True, False, True], "a crash takes one run with it"


@pytest.mark.parametrize("kind", ENGINES, indirect=True)
def test_runs_outlive_their_scheduler_and_are_found_again(open_pool: Open, tmp_path: Path) -> None:
    first = open_pool(3)
    first.begin("contract", everything)
    start(first, 0, "until_released", tmp_path, "kept")
    start(first, 1, "until_released", tmp_path, "unwanted")
    told = words(first, 2)
    start(first, 2, "report", tmp_path, "ended")
    told += events(first, lambda seen: any(isinstance(event, Ended) for event in seen))
    pids = {event.content["tag"]: event.content["pid"] for event in told if isinstance(event, Word)}
    # The first says nothing more, as one that was killed; what it had taken, and not yet recorded, is told again.
    second = open_pool(3)
    kept = second.begin("contract", lambda job: job["tag"] != "unwanted")
    assert sorted(job["tag"] for job in kept.values()) == ["ended", "kept"]
    assert gone(pids["unwanted"])
    index = {job["tag"]: index for index, job in kept.items()}
    assert ends(second, 1)[index["ended"]].outcome["pid"] == pids["ended"]
    (tmp_path / "gate").touch()
    assert ends(second, 1)[index["kept"]].outcome["pid"] == pids["kept"], "it is the same process"
    assert second.wait(0) == []
    assert open_pool(3).begin("contract", everything) == {}, "what is through is not found again"


@pytest.mark.parametrize("kind", ENGINES, indirect=True)
def test_what_a_study_does_not_know_is_no_part_of_it(open_pool: Open, tmp_path: Path) -> None:
    first, other = open_pool(1), open_pool(1)
    first.begin("contract", everything)
    start(first, 0, "until_released", tmp_path)
    words(first, 1)
    assert other.begin("another", everything) == {}
    (tmp_path / "gate").touch()
    assert ends(first, 1)[0].lost is None, "another study leaves it alone"


ON_RAY = pytest.mark.parametrize("kind", [pytest.param("ray", marks=pytest.mark.engines)], indirect=True)


def by_node(cluster: RayCluster, seen: list[Any]) -> dict[str, list[str]]:
    """What GPUs the runs see that have said word, by the node on which they are."""
    nodes = {pid: name for name in cluster.names for pid in cluster.runs(name)}
    there = [event.content for event in seen if isinstance(event, Word)]
    return {name: [said["visible"] for said in there if nodes.get(said["pid"]) == name] for name in cluster.names}


@ON_RAY
def test_runs_share_the_gpus_of_a_cluster(open_with: Open, ray_cluster: RayCluster, tmp_path: Path) -> None:
    pool = open_with(slots_per_gpu=2)
    assert [slot.device for slot in pool.slots] == ["cuda"] * 4, "two nodes of one GPU"
    pool = open_with(slots_per_gpu=2, slots=6)
    pool.begin("contract", everything)
    for index in range(6):
        start(pool, index, "until_released", tmp_path)
    seen = events(pool, lambda seen: sum(isinstance(event, Word) for event in seen) >= 4)
    assert by_node(ray_cluster, seen) == {"head": ["0", "0"], "second": ["0", "0"]}, "two at a time on a GPU"
    assert not any(isinstance(event, Word) for event in pool.wait(5)), "a third pair waits"
    (tmp_path / "gate").touch()
    assert {end.outcome["tag"] for end in ends(pool, 6).values()} == {f"until_released-{index}" for index in range(6)}


@ON_RAY
def test_a_run_has_whole_gpus_of_one_node(open_with: Open, ray_cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of 1 CPU.* and 2 GPU.*; they have 2 and 1, 2 and 1"):
        open_with(gpus_per_run=2)
    ray_cluster.start_node("third", gpus=2)
    try:
        pool = open_with(gpus_per_run=2)
        assert [slot.device for slot in pool.slots] == ["cuda"]
        pool.begin("contract", everything)
        start(pool, 0, "until_released", tmp_path)
        assert by_node(ray_cluster, list(words(pool, 1))) == {"head": [], "second": [], "third": ["0,1"]}
        (tmp_path / "gate").touch()
        assert ends(pool, 1)[0].lost is None
    finally:
        ray_cluster.lose("third")
    wait_for(lambda: len(connect(ray_cluster.address)) == 2, "Ray to miss the node")


@pytest.mark.engines
@pytest.mark.usefixtures("ray_cluster")
def test_without_an_address_ray_is_started_here(tmp_path: Path) -> None:
    script = "from experiments.pools.ray import connect; print(len(connect(None)), 'node')"
    environment = {**os.environ, "HOME": str(tmp_path)}  # where Ray leaves a token
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert done.stdout.strip() == "1 node", "another cluster of this machine is left alone"


def test_an_engine_pool_keeps_the_slots_that_it_was_given(tmp_path: Path) -> None:
    places = [Slot(index=index, device="cpu", visible="") for index in range(3)]
    assert EnginePool(places, tmp_path, work, lambda study, folder: None).slots == tuple(places)  # type: ignore[arg-type]

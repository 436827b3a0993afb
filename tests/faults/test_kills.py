"""SIGKILL, wherever it comes: to a run, to the scheduler, to the fork server."""

import os
import signal

import pytest

from analysis import coverage
from analysis import store as reader
from tests.faults.conftest import Study, until
from tests.faults.sabotage import SLOW


@pytest.mark.parametrize(
    "faults",
    [
        {
            "plain": "die:14",  # of 24 steps: in the middle of an epoch
            "dsl": "in_checkpoint:3",  # half of it is written
            "dhm": "between_checkpoints:3",  # the old one is put aside and the new one not yet in its place
        },
        {"dhm": "after_finish", "probe": "die"},  # the record is whole and nobody knows; before anything is trained
    ],
    ids=["in an epoch and in a checkpoint", "at the end and before the beginning"],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(study: Study, faults: dict[str, str]) -> None:
    study.run(fault=" ".join(f"{method}={fault}" for method, fault in faults.items()))
    study.assert_as_if_undisturbed()
    assert study.attempts() == {method: 2 if method in faults else 1 for method in ("plain", "dsl", "dhm")}
    assert {how for how in study.interruptions().values() if how} == {"killed by SIGKILL"}
    resumed = [study.environment_of(method).get("resumed_at_epoch") for method in ("plain", "dsl", "dhm")]
    assert resumed == ([3, 2, 3] if len(faults) == 3 else [None, None, None])


def test_a_killed_scheduler_leaves_no_run_behind_and_the_same_command_finishes(study: Study) -> None:
    words = ("epochs=40",)
    started = study.start(*words, fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    runs = started.pids("run")
    assert len(runs) == 2
    started.process.kill()
    started.process.wait()
    until(lambda: not set(runs) & set(started.members()), "no run is orphaned", 10)
    until(lambda: not started.members(), "the fork server ends, too", 30)
    assert "RUNNING" in study.statuses(), "nobody could close the records"
    (plan,) = reader.plans(study.uri)
    states = set(coverage.coverage(plan, study.records())["state"])
    assert states == {coverage.MISSING}, "and yet nobody says that they run"

    study.run(*words)
    study.assert_as_if_undisturbed()
    assert sorted(study.attempts().values()) == [1, 2, 2]
    assert sorted(study.interruptions().values()) == ["", "its scheduler died", "its scheduler died"]


def test_a_killed_fork_server_is_replaced(study: Study) -> None:
    started = study.start("epochs=40", fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    (server,) = started.pids("server")
    os.kill(server, signal.SIGKILL)
    shown = started.ends(0)
    assert "its fork server was killed" in shown
    study.assert_as_if_undisturbed()

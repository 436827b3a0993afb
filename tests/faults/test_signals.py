"""Wishes to stop: once (finish the step and leave), twice (now), and a terminal that goes away."""

import os
import pty
import signal
import time

import pytest

from tests.faults.conftest import PATIENCE, Started, Study, until
from tests.faults.sabotage import SLOW

LONG = "epochs=40"


def busy(study: Study, **means: object) -> Started:
    """A study two of whose cells have a checkpoint and go on."""
    started = study.start(LONG, fault=SLOW, **means)
    until(lambda: means or "2 slots" in started.shown, "the study begins")
    until(lambda: len(study.checkpoints()) == 2, "two cells have a checkpoint")
    until(lambda: len(started.pids("run")) == 2, "two cells are at work")
    return started


def test_asked_once_it_leaves_in_order_and_goes_on_later(study: Study) -> None:
    started = busy(study)
    started.process.send_signal(signal.SIGTERM)
    shown = started.ends(130)
    assert "running cells leave at their next step" in shown and "the same command goes on" in shown
    assert "Traceback" not in shown
    assert "RUNNING" not in study.statuses() and len(study.checkpoints()) == 2
    until(lambda: not started.members(), "no process is left", 30)

    again = busy(study)
    again.process.send_signal(signal.SIGINT)
    assert "Traceback" not in again.ends(130)
    study.run(LONG)
    study.assert_as_if_undisturbed()
    assert sorted(study.interruptions().values())[-1] == "stopped (2)"


def test_asked_twice_it_ends_now(study: Study) -> None:
    started = busy(study)
    started.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in started.shown, "it has heard")
    started.process.send_signal(signal.SIGINT)
    shown = started.ends(130)
    assert "Traceback" not in shown
    until(lambda: not started.members(), "no process is left", 30)
    study.run(LONG)
    study.assert_as_if_undisturbed()


def test_a_terminal_that_goes_away_costs_nothing(study: Study) -> None:
    ours, theirs = pty.openpty()
    started = busy(study, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal)
    os.close(theirs)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        while os.read(ours, 65536):  # or the terminal's buffer would fill
            time.sleep(0.01)
    os.close(ours)  # the kernel sends SIGHUP; whatever is written now fails
    assert started.process.wait(PATIENCE) == 130
    until(lambda: not started.members(), "no process is left", 30)
    assert "RUNNING" not in study.statuses()
    study.run(LONG)
    study.assert_as_if_undisturbed()
    assert "stopped" in study.interruptions().values()


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_output_that_nobody_reads_stops_nothing(study: Study) -> None:
    """As with `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    started = study.start(stdout=writer, stderr=writer)
    os.close(writer)
    started.ends(0)
    study.assert_as_if_undisturbed()


@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_asked_while_it_begins_it_says_one_line(study: Study, seconds: float) -> None:
    started = study.start(LONG, start_new_session=True)
    time.sleep(seconds)
    os.killpg(started.process.pid, signal.SIGINT)  # as a terminal does it
    started.process.wait(PATIENCE)
    until(lambda: not started.members(), "no process is left", 60)
    assert "Traceback" not in started.shown
    study.run(LONG)
    study.assert_as_if_undisturbed()

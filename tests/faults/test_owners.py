"""Two schedulers at once, and two studies that want the same cell."""

from tests.faults.conftest import Study, until
from tests.faults.sabotage import SLOW


def test_a_second_scheduler_says_who_has_the_study_and_a_dead_ones_lock_is_taken_over(study: Study) -> None:
    first = study.start("epochs=100", fault=SLOW)
    until(study.checkpoints, "the first one works")
    shown = study.run("epochs=100", code=2)
    assert f"this study is being run by process {first.process.pid} on" in shown
    assert len(shown.strip().splitlines()) == 1
    assert first.process.poll() is None, "the first one is not disturbed"
    first.process.kill()
    first.process.wait()
    assert list((study.store / "locks").glob("*.owner")), "it left its note, and the lock file"
    study.run("epochs=100")
    study.assert_as_if_undisturbed()


def test_a_cell_that_another_study_trains_at_the_moment_is_not_trained_twice(study: Study) -> None:
    first = study.start("grid=methods", "epochs=40", fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "the first one works")
    # plain, DSL and DHM of `methods` are cells of `branch_positions`, too.
    second = study.start("grid=branch_positions", "factors.positions=['1+2']", "epochs=40")
    first.ends(0)
    shown = second.ends(0)
    assert "3 copied from other plans" in shown
    frame = study.records()
    assert len(frame) == 6 and frame["source_run"].notna().sum() == 3

"""Two schedulers at once, and two studies that want the same cell."""

from mlflow.tracking import MlflowClient

from analysis import schema
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


def test_a_scheduler_with_another_store_is_refused_until_the_first_is_known_to_be_dead(study: Study) -> None:
    study.run("epochs=100", "plan=true")
    shared = f"tracking={study.uri}"
    first = study.start("epochs=100", shared, fault=SLOW)
    until(lambda: len(study.checkpoints()) == 2, "the first one works")
    elsewhere = f"store={study.root / 'elsewhere'}"
    shown = study.run("epochs=100", shared, elsewhere, code=2)
    assert "this study is recorded as being run by" in shown and "retry=running takes over" in shown
    assert first.process.poll() is None
    first.process.kill()
    first.process.wait()
    until(lambda: not first.members(), "its runs have left", 30)
    # A lock of this machine is seen to be free; that of another one is not.
    client = MlflowClient(study.uri)
    for run_id in study.records()["run_id"]:
        client.set_tag(run_id, schema.OWNER, "far-away:/store/locks/plan.lock")
    shown = study.run("epochs=100", shared, elsewhere, code=2)
    assert "being run by far-away:/store/locks/plan.lock" in shown
    study.run("epochs=100", shared, elsewhere, "retry=running")
    assert set(study.statuses()) == {"FINISHED"} and len(study.records()) == 3

"""Failures that are a cell's own: bounded retries where they may help, named in the record."""

from analysis import schema
from tests.faults.conftest import Study


def test_out_of_memory_is_tried_again_alone_and_a_loss_that_is_not_finite_is_not(study: Study) -> None:
    shown = study.run("seeds=2", fault="dhm=crowded:6 dsl=diverge:6", code=1)
    frame = study.records().set_index([schema.VARIANT, schema.SEED])
    for seed in (0, 1):
        fits_alone, diverged = frame.loc[("dhm", seed)], frame.loc[("dsl", seed)]
        assert fits_alone["status"] == "FINISHED"
        assert (diverged["status"], diverged[schema.FAILURE]) == ("FAILED", schema.NOT_FINITE)
        assert int(diverged[schema.ATTEMPTS]) == 1, "it would diverge again"
        message = diverged[schema.FAILURE_MESSAGE]
        assert "epoch 1 (steps 4 to 7)" in message and "ce/main" in message and "ce/side1" in message
        assert message in " ".join(shown.split())
    assert "out of memory" in set(study.interruptions().values())
    assert "to be resumed (out of memory)" in shown


def test_out_of_memory_also_alone_is_a_failure_and_retry_runs_it_again(study: Study) -> None:
    shown = study.run(fault="dhm=memory:6", code=1)
    row = study.records().set_index(schema.VARIANT).loc["dhm"]
    assert (row["status"], row[schema.FAILURE], int(row[schema.ATTEMPTS])) == ("FAILED", schema.OUT_OF_MEMORY, 2)
    assert "also alone on its device" in row[schema.FAILURE_MESSAGE]
    assert study.interruptions()["dhm s0"] == "out of memory"
    assert "2 of 3 cells done" in shown and "retry=failed" in shown
    assert "0 to run" in study.run(code=1), "what failed stays as it is"
    study.run("retry=failed")
    study.assert_as_if_undisturbed()


def test_a_mistake_in_the_model_stops_the_study_and_is_shown(study: Study) -> None:
    shown = study.run("seeds=4", "pool.cpu_slots=1", fault="plain=explode:2 dsl=explode:2 dhm=explode:2", code=1)
    assert "3 cells failed alike, RuntimeError at" in shown
    assert "the model has a mistake" in shown and "Traceback (most recent call last)" in shown
    assert "9 cells are missing" in shown
    frame = study.records()
    assert len(frame) == 3 and set(frame["status"]) == {"FAILED"}
    assert frame[schema.VARIANT].nunique() > 1
    assert set(frame[schema.ATTEMPTS].astype(int)) == {1}
    assert not list((study.root / "runs").iterdir())

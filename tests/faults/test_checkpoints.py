"""Checkpoints that are damaged on the disk: found out, told, and never trained on."""

import json
from pathlib import Path

from dhm.checkpoint import previous
from tests.faults.conftest import Study, until
from tests.faults.sabotage import SLOW


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_a_damaged_checkpoint_costs_an_epoch_and_two_cost_the_run(study: Study) -> None:
    words = ("epochs=40", "factors.method=[plain,dhm]")
    started = study.start(*words, fault=SLOW)
    until(lambda: len([p for p in study.checkpoints() if previous(p).exists()]) == 2, "two cells have two checkpoints")
    started.process.kill()
    started.process.wait()
    until(lambda: not started.members(), "its runs have left", 30)
    one, both = study.checkpoints()
    flip(one)
    flip(both)
    cut(previous(both))
    shown = study.run(*words)
    assert shown.count("is damaged: its checksum does not hold") == 3
    assert shown.count("no checkpoint is left: started again from the first epoch") == 1
    study.assert_as_if_undisturbed(2)
    frame = study.records().set_index("cell_id")
    for path, resumed in ((one, True), (both, False)):
        variant = str(frame.loc[path.name.partition(".")[0], "variant"])
        assert ("resumed_at_epoch" in study.environment_of(variant)) == resumed
        assert "its checksum does not hold" in json.loads(study.artifact(variant, "notes.json").read_text())[0]

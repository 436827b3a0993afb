"""What sbatch is asked for, in a script that submitit makes; sbatch itself is made up, so GPUs are too."""

import os
import re
from pathlib import Path

import pytest

from experiments import config, pools
from tests.engines.conftest import absent
from tests.engines.jobs import work

pytestmark = pytest.mark.engines


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of SLURM that take every job and know of none."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        absent(error)
    for name, does in (("sbatch", "echo Submitted batch job 7"), ("squeue", ":"), ("scancel", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("sbatch")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("gpus_per_run=1", "gpus-per-node=1 cpus-per-task=5 requeue signal=USR2@120"),
        ("gpus_per_run=4 slots_per_gpu=2 time=2:00:00", "gpus-per-node=4 cpus-per-task=16 time=120 signal=USR2@120"),
        ("memory=16G partition=gpu sbatch.constraint=a100", "cpus-per-task=1 mem=16G partition=gpu constraint=a100"),
        ("qos=low account=lab time=2", "cpus-per-task=1 qos=low account=lab time=2 signal=USR2@30"),
    ],
)
def test_flags_of_a_job(tmp_path: Path, words: str, wanted: str) -> None:
    asked = config.pool_of(config.read(["pool=slurm", *(f"pool.{word}" for word in words.split())]))
    pool = pools.arrange(asked, asked.gpus_per_run or 1).open(tmp_path, work)
    pool.begin("study", lambda job: True)
    pool.start(pool.slots[0], {"do": "report", "tag": "a"}, str(tmp_path / "log"))
    pool.wait(0)
    (script,) = tmp_path.rglob("7_submission.sh")
    flags = set(re.findall(r"^#SBATCH --(\S+)$", script.read_text(), flags=re.MULTILINE))
    pool.close()
    assert set(wanted.split()) <= flags
    assert any("gpu" in flag for flag in flags) == ("gpu" in wanted)

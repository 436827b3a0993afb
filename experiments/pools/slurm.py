"""SLURM: a job runs one cell or a few; jobs that are handed over together are one array.

A job that is preempted, or whose time is nearly over, has its cells leave at their next step and is queued again.
"""

import dataclasses
import functools
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pools.parts import engine_pool
from experiments.pools.parts.agent import Agent
from experiments.pools.parts.arrangement import Arrangement, PoolConfig
from experiments.pools.parts.engine import EngineAwayError, study_name

TIMEOUT = 60  # seconds for an answer of SLURM's
WARNING = 120  # seconds before its end at which a job is told to leave
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED"}
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE",
        "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}  # fmt: skip
_AWAY = re.compile(
    "Unable to contact|Socket timed out|Connection (refused|reset|timed out)|temporarily|try again", re.I
)
_GONE = re.compile("Invalid job id", re.I)


@dataclasses.dataclass
class Config(PoolConfig):
    """Jobs of SLURM; what is none is the cluster's default. A run has no GPU unless `gpus_per_run` asks for some.

    Args:
        slots: how many cells are with SLURM at once, waiting or running.
        cells_per_job: how many cells a job runs, one after the other (`slots_per_gpu` at a time).
        time: limit of a job: minutes, 'H:MM:SS' or 'D-HH:MM'; its cells go on in the next one.
        memory: such as 16G.
        sbatch: further flags of sbatch, by name, such as `pool.sbatch.constraint=a100`.
    """

    slots: int = 32
    cells_per_job: typing.Optional[int] = None  # noqa: UP045
    partition: typing.Optional[str] = None  # noqa: UP045
    account: typing.Optional[str] = None  # noqa: UP045
    qos: typing.Optional[str] = None  # noqa: UP045
    time: Any = None
    memory: Any = None
    sbatch: dict[str, Any] = dataclasses.field(default_factory=dict)


def arrange(asked: Config, replicas: int) -> Arrangement:
    """See `experiments.pools.arrange`."""
    at_once = asked.count("slots_per_gpu", 1)
    cells = at_once if asked.cells_per_job is None else asked.count("cells_per_job", 1)
    if cells < at_once:
        raise ValueError(f"pool.cells_per_job={cells} is less than pool.slots_per_gpu={at_once}, which run at a time")
    count, on_gpu = asked.count("slots", 1), asked.gpus_per_run is not None
    engine = functools.partial(Slurm, asked=flags(asked, replicas))
    return engine_pool.arrangement(asked, count, engine, on_gpu=on_gpu, jobs_per_program=cells, at_once=at_once)


def flags(asked: Config, replicas: int) -> dict[str, Any]:
    """What sbatch is asked for, in submitit's words: a job has the GPUs of one run, all on one node, which its
    `slots_per_gpu` runs share, and processors for each of those."""
    on_gpu, limit = asked.gpus_per_run is not None, minutes(asked.time)
    each = asked.threads * replicas + engine_pool.workers(asked, on_gpu=on_gpu)
    return {
        **{name: getattr(asked, name) for name in ("partition", "account", "qos")},
        "time": limit,
        "mem": None if asked.memory is None else str(asked.memory),
        "gpus_per_node": replicas if on_gpu else None,
        "cpus_per_task": each * asked.slots_per_gpu,
        "signal_delay_s": WARNING if limit is None else min(WARNING, 15 * limit),
        "additional_parameters": {"requeue": True, **asked.sbatch},
    }


def minutes(asked: str | int | None) -> int | None:
    """A time limit as sbatch takes it: minutes, or "H:MM:SS", "D-HH", "D-HH:MM".

    Raises:
        ValueError: it is none.
    """
    if asked is None:
        return None
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(asked))
    if found is None:
        raise ValueError(f"pool.time={asked} is no time: give minutes, 'H:MM:SS' or 'D-HH:MM'")
    days, first, second, third = (0 if part is None else int(part) for part in found.groups())
    if found[1] is not None:
        total = 24 * 60 * days + 60 * first + second
    elif found[4] is not None:
        total = 60 * first + second + (third > 0)
    else:
        total = first + (second > 0)  # MM:SS
    if total < 1:
        raise ValueError(f"pool.time={asked}: must be at least a minute")
    return total


class Slurm:
    """The engine of a study.

    Args:
        study: its name.
        folder: for what programs print; every node sees it.
        asked: of sbatch, see `flags`.

    Raises:
        ValueError: this machine has no SLURM, or submitit is not installed.
    """

    def __init__(self, study: str, folder: Path, asked: Mapping[str, Any]) -> None:
        if shutil.which("sbatch") is None:
            raise ValueError("pool=slurm: this machine has no sbatch; give the command on a login node of the cluster")
        try:
            import submitit  # noqa: PLC0415
        except ImportError as error:
            raise ValueError("pool=slurm needs submitit: pip install 'dhm-ablation[slurm]'") from error
        self._name = study_name(study, folder)
        self.requeue: Sequence[str] = ("sh", "-c", "scontrol requeue ${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}"
                        "${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}")  # fmt: skip
        self._submitit = submitit
        self._executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=1_000_000, python=sys.executable)
        self._executor.update_parameters(job_name=self._name, stderr_to_stdout=True, **asked)

    def submit(self, programs: Sequence[Agent]) -> list[str]:
        """See `Engine.submit`."""
        try:
            if len(programs) == 1:
                return [self._executor.submit(programs[0]).job_id]
            return [job.job_id for job in self._executor.map_array(Agent.__call__, programs)]
        except self._submitit.core.utils.FailedJobError as error:
            raise _refused(str(error)) from error

    def look(self, numbers: Collection[str]) -> Mapping[str, bool]:
        """See `Engine.look`. One question for all of them."""
        there = self._jobs()
        return {number: there[number] in QUEUED for number in numbers if number in there}

    def _jobs(self) -> dict[str, str]:
        lines = _ask("squeue", "--me", "--noheader", "--array", f"--name={self._name}", "--format=%i %T").splitlines()
        return {number: state for number, state in (line.split() for line in lines) if state not in OVER}

    def title(self, number: str) -> str:
        """See `Engine.title`."""
        return f"job {number}"

    def ending(self, number: str) -> str:
        """See `Engine.ending`. SLURM keeps it for some minutes."""
        try:
            told = _ask("scontrol", "show", "job", number, "--oneliner")
        except (EngineAwayError, ValueError):
            told = ""
        state = re.search(r"JobState=(\w+)", told)
        return f"job {number} {state[1].lower().replace('_', ' ') if state else 'is gone'}"

    def strays(self) -> Collection[str]:
        """See `Engine.strays`."""
        return list(self._jobs())

    def cancel(self, numbers: Collection[str]) -> None:
        """See `Engine.cancel`."""
        if numbers:
            try:
                _ask("scancel", *numbers)
            except ValueError as error:
                if not _GONE.search(str(error)):
                    raise

    def close(self) -> None:
        """See `Engine.close`."""


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineAwayError(f"{command[0]} does not answer") from error
    if done.returncode:
        raise _refused(done.stderr.strip())
    return done.stdout


def _refused(words: str) -> Exception:
    if _AWAY.search(words):
        return EngineAwayError(words)
    return ValueError(f"SLURM refuses: {words.splitlines()[0] if words else 'without a word'}")

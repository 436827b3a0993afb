"""SLURM: a job runs one cell or a few; jobs that are handed over together are one array.

A job that is preempted, or whose time is nearly over, has its cells leave at their next step and is queued again.
"""

import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pools.agent import Agent
from experiments.pools.engine import EngineAwayError

INSTALL = "pool=slurm needs submitit: pip install 'dhm-ablation[slurm]'"
TIMEOUT = 60  # seconds for an answer of SLURM's
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED"}
OVER = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
}
_AWAY = re.compile(
    "Unable to contact|Socket timed out|Connection (refused|reset|timed out)|temporarily|try again", re.I
)
_GONE = re.compile("Invalid job id", re.I)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What is asked of SLURM for a job; none is the cluster's default.

    Args:
        minutes: its time limit.
        memory: such as "16G".
        gpus: that it has, all on one node.
        cpus: that it has.
        extra: further flags of sbatch, without their dashes.
        warning: seconds before its end at which it is told to leave.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: int | None = None
    memory: str | None = None
    gpus: int = 0
    cpus: int = 1
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warning: int = 120


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

    Raises:
        ValueError: this machine has no SLURM, or submitit is not installed.
    """

    def __init__(self, study: str, folder: Path, terms: Terms) -> None:
        if shutil.which("sbatch") is None:
            raise ValueError("pool=slurm: this machine has no sbatch; give the command on a login node of the cluster")
        try:
            import submitit  # noqa: PLC0415
        except ImportError as error:
            raise ValueError(INSTALL) from error
        self._name = f"dhm-{study}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        self.requeue = ("sh", "-c", "scontrol requeue ${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}"
                        "${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}")  # fmt: skip
        self._submitit = submitit
        self._executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=1_000_000, python=sys.executable)
        given = {"partition": terms.partition, "account": terms.account, "qos": terms.qos, "time": terms.minutes}
        given |= {"mem": terms.memory, "gpus_per_node": terms.gpus or None, "cpus_per_task": terms.cpus}
        warning = terms.warning if terms.minutes is None else min(terms.warning, 15 * terms.minutes)
        additional = {"requeue": True, **terms.extra}
        self._executor.update_parameters(
            job_name=self._name,
            signal_delay_s=warning,
            additional_parameters=additional,
            stderr_to_stdout=True,
            **given,
        )

    def submit(self, programs: Sequence[Agent]) -> list[str]:
        """See `Engine.submit`."""
        try:
            if len(programs) == 1:
                return [self._executor.submit(programs[0]).job_id]
            return [job.job_id for job in self._executor.map_array(_call, programs)]
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


def _call(program: Agent) -> None:
    program()


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

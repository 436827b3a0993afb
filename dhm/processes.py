"""The processes of a run that has replicas: the run itself is the first, and starts the others.

The others end with the first, also when it is killed; that one of them is gone ends the run at once.
"""

import dataclasses
import datetime
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from dhm.replicas import Replica

# Others wait in a collective while the first evaluates; that one of them is gone is seen at once, by other means.
COLLECTIVE = datetime.timedelta(days=1)
NOTICE = 5.0  # seconds in which a process that has ended is known to have
GRACE = 60.0  # seconds that the first replica has to leave a collective that will never end
READY = "ready"


class ReplicaLostError(RuntimeError):
    """A replica was killed from outside: the run cannot go on, and may be started again from its checkpoint."""


class ReplicaError(RuntimeError):
    """A replica failed; the message ends in its trace."""


@contextmanager
def replicated(count: int, device: str, follow: Callable[[Replica], None]) -> Iterator[Replica]:
    """The first replica of a run, while the others `follow`, each in a process of its own.

    With one replica no process is started. Others end with this context, also when this process is killed.

    Args:
        device: of the first replica.
        follow: what the others do; picklable.

    Raises:
        ValueError: there are not so many GPUs.
        ReplicaLostError: another replica was killed.
        ReplicaError: another replica failed (torch.OutOfMemoryError where it ran out of memory).
    """
    first = Replica(0, count)
    if count == 1:
        yield first
        return
    _require_devices(first, device)
    with tempfile.TemporaryDirectory(prefix="dhm-replicas-") as folder:
        store = Path(folder) / "store"
        # Copied: multiprocessing would put tensors into shared memory, of which containers have little.
        task = pickle.dumps(follow)
        others = _Others(on_gpu=torch.device(device).type == "cuda")
        try:
            for index in range(1, count):
                others.start(_run, Replica(index, count), device, store, task)
            others.wait_until_ready()
            with _joined(first, device, store):
                yield dataclasses.replace(first, gone=others.gone)
        except Exception as error:
            # A replica that is gone shows as a collective that fails, a moment before its process has ended.
            failure = others.failure(NOTICE if isinstance(error, RuntimeError) else 0)
            if failure is None or failure is error:
                raise
            raise failure from error
        finally:
            others.close()


class _Others:
    """The processes of the other replicas, watched from that of the first.

    Args:
        on_gpu: whether a collective that a replica has left must be broken off: on a CPU it fails by itself.

    Attributes:
        gone: set once one of them has ended.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._running: list[tuple[BaseProcess, connection.Connection]] = []
        self._closed = threading.Event()
        self.gone = threading.Event()

    def start(self, target: Callable[..., None], replica: Replica, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, replica, *arguments), name=f"replica-{replica.index}")
        process.start()
        theirs.close()
        self._running.append((process, ours))

    def wait_until_ready(self) -> None:
        """Wait until all are about to join."""
        for process, channel in self._running:
            connection.wait([process.sentinel, channel])
            if _next(channel) != READY:
                raise self.failure(NOTICE) or ReplicaError(f"{process.name} did not begin")
        threading.Thread(target=self._watch, daemon=True).start()

    def failure(self, patience: float) -> Exception | None:
        """Why a replica has ended, or ends within so many seconds; none may before it is told to."""
        # What a replica says of its failure comes before its end, by a second or more where the machine is busy.
        watched = [sign for process, channel in self._running for sign in (process.sentinel, channel)]
        signs = connection.wait(watched, patience)
        for process, channel in self._running:
            if process.sentinel not in signs and channel not in signs:
                continue
            process.join()
            told = _next(channel)
            if told is not None:
                out_of_memory, trace = told
                error = torch.OutOfMemoryError if out_of_memory else ReplicaError
                return error(f"{trace.strip().splitlines()[-1]} (in {process.name})\n{trace}")
            code = process.exitcode or 0
            if code < 0:
                return ReplicaLostError(f"{process.name} was killed by {signal.Signals(-code).name}")
            return ReplicaError(f"{process.name} ended with code {code}")
        return None

    def close(self) -> None:
        """End all; they hold nothing that is worth keeping."""
        self._closed.set()
        for process, _ in self._running:
            process.kill()
        for process, channel in self._running:
            process.join()
            channel.close()

    def _watch(self) -> None:
        """See to it that the first replica does not wait for ever for one that is gone."""
        connection.wait([process.sentinel for process, _ in self._running])
        self.gone.set()
        if self._on_gpu and not self._closed.is_set():
            _break_off()
        if not self._closed.wait(GRACE):
            print("a replica is gone, and the run waits for it in vain", file=sys.stderr, flush=True)
            os._exit(1)


def _next(channel: connection.Connection) -> Any:
    """The next thing that a replica has sent, or None."""
    with suppress(EOFError, OSError):
        if channel.poll():
            return channel.recv()
    return None


def _run(
    channel: connection.Connection,
    replica: Replica,
    device: str,
    store: Path,
    task: bytes,
) -> None:
    """What the process of another replica does."""
    # Ctrl-C in a terminal reaches every process of it; the first replica decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, args=(channel,), daemon=True).start()
    channel.send(READY)
    try:
        with _joined(replica, device, store):
            follow: Callable[[Replica], None] = pickle.loads(task)
            follow(replica)
    except Exception as error:
        channel.send((isinstance(error, torch.OutOfMemoryError | MemoryError), traceback.format_exc()))
        sys.exit(1)
    threading.Event().wait()  # until it is ended: one that ends by itself has failed


def _end_with_the_first(channel: connection.Connection) -> None:
    with suppress(EOFError, OSError):
        channel.recv()
    os._exit(1)


@contextmanager
def _joined(replica: Replica, device: str, store: Path) -> Iterator[None]:
    """Membership in the group of a run's replicas, which torch keeps for the whole process."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(replica.device(device))
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=distributed.FileStore(str(store), replica.count),  # type: ignore[attr-defined]
        rank=replica.index,
        world_size=replica.count,
        timeout=COLLECTIVE,
    )
    try:
        yield
    except BaseException:
        if on_gpu:
            _break_off()
        raise
    finally:
        distributed.destroy_process_group()


def _break_off() -> None:
    """End the collectives of this process that others no longer take part in."""
    group = distributed.group.WORLD
    if group is not None:
        with suppress(Exception):  # there may be nothing left to end
            group.abort()


def _require_devices(first: Replica, device: str) -> None:
    if torch.device(device).type == "cpu":
        return
    last = torch.device(dataclasses.replace(first, index=first.count - 1).device(device))
    there = torch.cuda.device_count()
    if last.index >= there:
        raise ValueError(f"replicas={first.count} from {device} on need {last.index + 1} GPUs, and torch sees {there}")

"""What reaches a scheduler from outside: wishes to stop, and a terminal that goes away."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.scheduling.runner import Runner

INTERRUPTED = "interrupted"


@contextlib.contextmanager
def heeded(runner: "Runner") -> Iterator[None]:
    """Heed signals while a runner works, and take its live table away at the end.

    The first Ctrl-C (or SIGTERM) lets the running cells finish their step and leave; the second ends them. Where the
    terminal goes away they leave as after the first, unless nohup had SIGHUP ignored.
    """
    asked = 0
    terminals = [stream for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        hangup = number == signal.SIGHUP
        if hangup:
            for stream in terminals:
                let_go(stream)
        if asked and not hangup:  # a shell and the kernel may both send the hangup
            raise KeyboardInterrupt
        asked += 1
        runner.stop(INTERRUPTED)
        with contextlib.suppress(OSError):
            print("\nstopping: running cells leave at their next step (again to stop at once)", file=sys.stderr)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        runner.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class Outlet:
    """A stream whose reader may go away (a terminal that is closed, `| head`): what it cannot take is dropped, and the
    work goes on.

    Args:
        stream: everything else is its own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """See `io.TextIOBase.write`."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """See `io.TextIOBase.flush`."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            let_go(self._stream)


def let_go(stream: Any) -> None:
    """Send what is written from now on to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

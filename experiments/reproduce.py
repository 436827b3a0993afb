"""Run a recorded run again, and hold the two against each other, curve by curve.

RUN_ID is a run's id, the beginning of it, or its name where that is the only one. The run is trained from its record:
recipe, seed, threads, kernels. Nothing is written to the store. On one machine, with the same code and packages, it
comes out the same to the bit; where it does not, you are told which curve parts first, and at which epoch.

  store=DIR          where the run is recorded (results/store)
  data.root=DIR      folder of the images, for what is not embedded
  tolerance=0.01     losses that differ by this share of their value, and errors by this share of 100 points, still pass
  device=NAME        cpu or cuda, in place of the recorded one

Exit codes: 0 identical, or within tolerance (it says which); 1 different; 2 a mistake; 130 interrupted.
"""

import sys
from collections.abc import Sequence

from experiments.words import CommandLine, tell_mistake

COMMAND = CommandLine(
    "experiments.reproduce",
    __doc__,
    words="RUN_ID",
    settings={"store": "results/store", "data.root": None, "tolerance": "0.01", "device": None},
    options={
        "checkout": "run the recorded commit, with the recorded changes, in a git worktree of its own",
        "json": "print what was found as JSON",
    },
)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        words, settings = COMMAND.read(sys.argv[1:] if arguments is None else arguments)
        if len(words) != 1:
            raise ValueError("give one run: python -m experiments.reproduce RUN_ID (an id, its beginning, or a name)")
        from experiments.reproduction.session import reproduce  # noqa: PLC0415  (seconds; help need not wait for them)

        return reproduce(words[0], settings)
    except (ValueError, OSError) as error:
        return tell_mistake(error)
    except KeyboardInterrupt:
        print("stopped; nothing was recorded", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

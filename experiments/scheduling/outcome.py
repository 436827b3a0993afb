"""How a study ended."""

import dataclasses


@dataclasses.dataclass(slots=True)
class Outcome:
    """How a study ended.

    Attributes:
        done: cells that are recorded as finished, whenever.
        trained: of them, those trained now.
        copied: of them, those recorded now by copying.
        pruned: trials that were given up.
        saved: share of the trials' epochs that was not trained, because trials were given up.
        failed: failed cells by name, with the last line of their error and the file that has the whole of it.
        missing: cells that have no result yet.
        stopped: why the study stopped before its end, if it did.
    """

    done: int = 0
    trained: int = 0
    copied: int = 0
    pruned: int = 0
    saved: float = 0.0
    failed: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    missing: int = 0
    stopped: str | None = None

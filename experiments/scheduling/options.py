"""How a study is run."""

import dataclasses
from collections.abc import Sequence

from analysis import schema
from dhm.training import Callback, Runtime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a study is run; none of it changes a result.

    Args:
        retries: see `Retries`.
        retry: which cells that have a record are made anew: `failed`, `stale`, or none; or `running`: those that a
            scheduler with another store left open are taken over.
        patience: seconds for which a store that does not answer is waited for.
        runtime: of every run; its device, cache, checkpoint and parts are each cell's own.
        callbacks: what else is done in every run, such as measurements; each run gets its own copies.
        preflight: whether one step of each arm comes first.
    """

    retries: int = 2
    retry: str | None = None
    patience: float = 600
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    callbacks: Sequence[Callback] = ()
    preflight: bool = False

    @property
    def measured(self) -> tuple[str, ...]:
        """What is measured besides the heads' errors, by the beginnings of its metrics' names."""
        ensembles = f"{schema.FINAL_TOP1}/{schema.ENSEMBLE}"
        asked = {schema.DIAGNOSTICS: bool(self.callbacks), ensembles: self.runtime.ensembles}
        return tuple(name for name, wanted in asked.items() if wanted)

"""Two runs of one recipe, curve by curve."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

Curve = Mapping[int, float]
"""Values by epoch."""

IDENTICAL, WITHIN, DIFFERENT = "identical", "within tolerance", "different"
RESULTS = ("train/", "val/", "test/", "loss/")  # begin the names of what a recipe decides


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parting:
    """Where two curves of one metric first differ, and how far apart they come.

    Args:
        largest: the largest difference at any epoch, as `distance` measures it.
    """

    metric: str
    epoch: int
    recorded: float
    now: float
    largest: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How two runs compare.

    Args:
        curves: metrics that both have.
        points: values that were compared.
        partings: of the curves that differ, the first to part first.
        recorded_only, now_only: metrics that one of the two lacks.
        tolerance: see `distance`.
    """

    curves: tuple[str, ...]
    points: int
    partings: tuple[Parting, ...]
    recorded_only: tuple[str, ...]
    now_only: tuple[str, ...]
    tolerance: float

    @property
    def verdict(self) -> str:
        """`IDENTICAL`, `WITHIN` or `DIFFERENT`. Curves of unequal length differ by infinity, and so does a result that
        was recorded and is not there now; where nothing is compared nothing is the same."""
        if not self.curves or any(name.startswith(RESULTS) for name in self.recorded_only):
            return DIFFERENT
        if not self.partings:
            return IDENTICAL
        return WITHIN if all(parting.largest <= self.tolerance for parting in self.partings) else DIFFERENT


def compare(recorded: Mapping[str, Curve], now: Mapping[str, Curve], tolerance: float) -> Comparison:
    """Compare all curves that both have."""
    shared = sorted(set(recorded) & set(now))
    found = [_parting(name, recorded[name], now[name]) for name in shared]
    partings = [parting for parting in found if parting is not None]
    return Comparison(
        curves=tuple(shared),
        points=sum(len(set(recorded[name]) | set(now[name])) for name in shared),
        partings=tuple(sorted(partings, key=lambda parting: (parting.epoch, parting.metric))),
        recorded_only=tuple(sorted(set(recorded) - set(now))),
        now_only=tuple(sorted(set(now) - set(recorded))),
        tolerance=tolerance,
    )


def distance(metric: str, a: float, b: float) -> float:
    """How far two values are apart: errors in units of 100 percentage points, all else relative to the larger one."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / (100.0 if "_error" in metric else max(abs(a), abs(b)))


def _parting(metric: str, recorded: Curve, now: Curve) -> Parting | None:
    epochs: Sequence[int] = sorted(set(recorded) | set(now))
    pairs = [(epoch, recorded.get(epoch, math.inf), now.get(epoch, -math.inf)) for epoch in epochs]
    apart = [(epoch, a, b, distance(metric, a, b)) for epoch, a, b in pairs]
    first = next(((epoch, a, b) for epoch, a, b, far in apart if far > 0), None)
    if first is None:
        return None
    epoch, a, b = first
    return Parting(metric=metric, epoch=epoch, recorded=a, now=b, largest=max(far for *_, far in apart))

"""A rule for comparisons that are looked at more than once, with more seeds each time, at one error rate in all.

Looking at a p value every few seeds, and stopping when it is small, finds differences where there are none: at four
looks in every eighth study. The rule spends the 5 % over the looks (Lan and DeMets 1983; spending of Pocock's type,
which decides large differences early). Boundaries are those of a Brownian motion, as nominal levels for the paired t
test (Pocock 1977). A comparison's sequential p value is the smallest level at which it would have been decided at some
look so far (Liu and Anderson 2008); it never grows, so Holm's correction of these p values holds whenever one stops.
From look to look a t of few seeds hangs together less than a Brownian motion, so that it crosses more often:
CALIBRATION makes up for it.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import stats as distributions

from analysis.stats import LEVEL, MIN_PAIRS, Paired, holm, paired

Array = npt.NDArray[np.float64]
CALIBRATION = 0.85  # of the level is spent: simulated, up to 1.16 times as much is used up from 3 to 30 seeds
MOST_LOOKS = 40  # what the simulation of the rule covers, and then some
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_LEVELS = np.concatenate([np.logspace(-12, -3, 28), np.linspace(0.002, 0.1, 50), np.linspace(0.12, 0.98, 44)])


def looks(every: int, most: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which comparisons are looked at. ValueError where there can be none."""
    if most < MIN_PAIRS:
        raise ValueError(f"study.max_seeds={most}: must be at least {MIN_PAIRS}, or no difference can be told")
    if every < MIN_PAIRS:
        raise ValueError(f"study.look_every={every}: must be at least {MIN_PAIRS}, or no difference can be told")
    if most < every:
        raise ValueError(f"study.max_seeds={most}: must be at least study.look_every={every}")
    if most > every * MOST_LOOKS:
        raise ValueError(f"study.max_seeds={most}: at study.look_every={every} that is more than {MOST_LOOKS} looks")
    return (*range(every, most, every), most)


def words(at: Sequence[int]) -> str:
    """Say in two sentences by which rule seeds were added, and what p values and intervals are."""
    return (
        f"Seeds were added where a comparison was open, at looks after {', '.join(map(str, at))}: at most 5 % of error "
        "is spent over the looks (group-sequential; Lan and DeMets, Pocock's type). p is sequential and the interval "
        "repeated: both hold however often one looked."
    )


@functools.lru_cache(maxsize=256)
def nominal(at: tuple[int, ...], level: float = LEVEL) -> tuple[float, ...]:
    """Return the two-sided level at which each look decides, so that under no difference all together do at `level`."""
    spent = 0.0
    points, weights = np.zeros(1), np.ones(1)  # where the motion may be, and how likely
    found = []
    for number, seeds in enumerate(at):
        share, before = seeds / at[-1], at[number - 1] / at[-1] if number else 0.0
        due = level * math.log1p((math.e - 1) * share) - spent
        spread = math.sqrt(share - before)

        reach = functools.partial(_beyond, points=points, weights=weights, spread=spread)
        bound = float(optimize.brentq(lambda at, reach=reach, due=due: math.log(reach(at) / due), 0.0, 12.0))
        found.append(2 * float(distributions.norm.sf(bound / math.sqrt(share))))
        spent += due
        inside = bound * _NODES
        density = distributions.norm.pdf((inside[:, None] - points) / spread) / spread
        points, weights = inside, bound * _WEIGHTS * (density @ weights)
    return tuple(found)


def _beyond(bound: float, points: Array, weights: Array, spread: float) -> float:
    """Return how likely the motion is to step out of plus and minus `bound`."""
    ends = ((bound - points) / spread, (bound + points) / spread)
    return max(sum(float(weights @ distributions.norm.sf(end)) for end in ends), 1e-300)


def p_values(at: tuple[int, ...], p: Array) -> Array:
    """Return sequential p values from those of the looks so far, whose number is the size of the last axis.

    A look without a p value (NaN) decides nothing.
    """
    table = _table(at)[:, : p.shape[-1]]
    found = np.ones(p.shape)
    for look in range(p.shape[-1]):
        own = np.log(np.clip(p[..., look], 1e-300, 1.0))
        level = np.exp(np.interp(own, np.log(table[:, look]), np.log(_LEVELS)))
        found[..., look] = np.where(p[..., look] <= table[-1, look], level, 1.0)
    return np.asarray(np.minimum(found.min(axis=-1) / CALIBRATION, 1.0))


@functools.lru_cache(maxsize=16)
def _table(at: tuple[int, ...]) -> Array:
    """Nominal levels by level and look."""
    return np.array([nominal(at, float(level)) for level in _LEVELS])


def compare(at: Sequence[int], arm: Mapping[int, float], baseline: Mapping[int, float], seeds: Sequence[int]) -> Paired:
    """Compare two arms at the last look that `seeds`, in the order in which they were added, reach.

    As `stats.paired`, but p is sequential, and the interval is repeated: over all looks together it misses the true
    difference in 5 of 100 studies at most (Jennison and Turnbull 1989).
    """
    at = tuple(at)
    reached = [n for n in at if n <= len(seeds)]
    found = [paired({s: arm[s] for s in seeds[:n] if s in arm}, baseline) for n in reached]
    if not found:
        return paired({}, {})
    last = found[-1]
    p = float(p_values(at, np.array([[result.p for result in found]]))[0]) if last.n >= MIN_PAIRS else math.nan
    low, high = last.low, last.high
    if last.sd > 0:
        half = (
            float(distributions.t.ppf(1 - nominal(at, CALIBRATION * LEVEL)[len(found) - 1] / 2, last.n - 1))
            * last.sd
            / math.sqrt(last.n)
        )
        low, high = last.mean - half, last.mean + half
    return Paired(n=last.n, mean=last.mean, sd=last.sd, low=low, high=high, p=p, d_z=last.d_z)


def counts(
    at: Sequence[int], names: Sequence[str], against: Mapping[str, str], errors: Callable[[str], Mapping[int, float]]
) -> dict[str, int]:
    """Return how many seeds every variant needs, as far as the errors that are known decide it.

    All begin at the first look; arms whose comparison is open there go on to the next one, with their baselines.

    Args:
        at: the looks.
        names: of all variants.
        against: the baseline of every arm.
        errors: of a variant by seed, which are 0, 1, ...
    """
    known = {name: errors(name) for name in names}
    needed = dict.fromkeys(names, at[0])
    for now, following in itertools.pairwise(at):
        if any(seed not in known[name] for name in names for seed in range(needed[name])):
            return needed
        results = [compare(at, known[arm], known[baseline], range(needed[arm])) for arm, baseline in against.items()]
        adjusted = holm([result.p for result in results])
        for arm, p in zip(against, adjusted, strict=True):
            if needed[arm] == now and not p < LEVEL:
                needed[arm] = following
        for arm in against:
            name = arm
            while (baseline := against.get(name)) is not None:  # a baseline may have one of its own
                needed[baseline] = max(needed[baseline], needed[name])
                name = baseline
    return needed

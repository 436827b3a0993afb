"""Figures that others published, each with its source and its standing, and how ours are held against them.

They stand in `published_values.csv`. `author`: from a README of the method's own authors; `second-hand`: quoted by a
third party. What no source was found for is not there.
"""

import csv
import math
from dataclasses import dataclass
from importlib import resources

MARGIN = 0.5  # percentage points within which a figure counts as the same
REPRODUCED, DIFFERS, INCONCLUSIVE = "reproduced", "differs", "inconclusive"
BENCHMARKS = {"cifar100": "cifar100", "imagenet": "ilsvrc2012"}  # our names to those of the file
# Methods that are not ours. DKS held itself against a deep supervision of its own, with other side branches: it is no
# figure of DHM's DSL.
OTHERS = {"ds": "DKS's deep supervision", "dks": "DKS"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure: an error in percent, as `written` by its source, with the deviation over `runs` where it gives one.

    `metric` is top1_error or top5_error; `method` plain, dsl, dhm or one of OTHERS.
    """

    architecture: str
    method: str
    metric: str
    value: float
    written: str
    sd: str
    runs: str
    source: str
    standing: str

    @property
    def text(self) -> str:
        """The figure as it was published."""
        return f"{self.written} ± {self.sd}" if self.sd else self.written


def figures(benchmark: str) -> tuple[Published, ...]:
    """Return the published figures of one of BENCHMARKS, in the file's order."""
    text = resources.files(__package__).joinpath("published_values.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            architecture=row["architecture"],
            method=row["method"],
            metric=row["metric"],
            value=float(row["value"]),
            written=row["value"],
            sd=row["std"],
            runs=row["runs"],
            source=row["source"],
            standing=row["standing"],
        )
        for row in csv.DictReader(text.splitlines())
        if row["dataset"] == BENCHMARKS[benchmark]
    )


def verdict(low: float, high: float) -> str:
    """Say what the 95 % interval of ours minus the published figure shows; NaN limits show nothing."""
    if math.isnan(low) or math.isnan(high):
        return INCONCLUSIVE
    if low >= -MARGIN and high <= MARGIN:
        return REPRODUCED
    return DIFFERS if high < -MARGIN or low > MARGIN else INCONCLUSIVE

"""Does DHM help more, or less, when there are few training images?

    python -m experiments.run grid=training_size

9 variants; on `digits` about two minutes for 5 seeds on 2 cores.
"""

from experiments.benchmarks import Benchmark
from experiments.grid import GRIDS, Grid


def _sizes(benchmark: Benchmark) -> list[int]:
    """Around what the benchmark trains on; 0 means all images that there are."""
    if benchmark.data.train_size:
        return [benchmark.data.train_size // 2, benchmark.data.train_size, 2 * benchmark.data.train_size]
    return [5000, 20000, 0]


training_size = GRIDS.register(
    "training_size",
    Grid(
        name="training_size",
        title="Training-set size",
        question="How does the gain of deep supervision and of DHM depend on the number of training images?",
        reading="Each arm is compared with plain training on the same images. Smaller sets are parts of larger ones; 0 "
        "stands for all training images. The number of epochs stays, so fewer images mean fewer steps.",
        factors={"method": ["plain", "dsl", "dhm"], "data.train_size": _sizes},
        baseline={"method": "plain"},
        figures=("levels", "effects", "training_curves"),
    ),
)

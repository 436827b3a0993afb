"""Does DHM beat deep supervision, and deep supervision plain training, on the ImageNet ResNets?

    python -m experiments.run grid=imagenet benchmark=imagenet data.root=/imagenet pool.gpus=all pool.gpus_per_run=4

12 variants, weeks of GPUs; `factors.arch=[resnet18]` is three of them. The authors' README publishes top-1 and top-5
errors of DSL and DHM on these four backbones, one run each; plain figures of three of them are published by the DKS
authors. Hold `best` against those. On another benchmark the backbones are its own, by depth.
"""

from experiments.benchmarks import Benchmark
from experiments.grid import GRIDS, Grid


def _backbones(benchmark: Benchmark) -> tuple[str, ...]:
    """Those of the README's table."""
    return ("resnet18", "resnet50", "resnet101", "resnet152") if benchmark.name == "imagenet" else benchmark.depths


imagenet = GRIDS.register(
    "imagenet",
    Grid(
        name="imagenet",
        title="ImageNet ResNets",
        question="Does DHM beat deep supervision (DSL), and DSL plain training, on the ImageNet ResNets?",
        reading="Each arm is compared with plain training of the same backbone. The authors' README publishes one run "
        "of DSL and of DHM for each backbone.",
        factors={"arch": _backbones, "method": ["plain", "dsl", "dhm"]},
        baseline={"method": "plain"},
        seeds=1,
        figures=("effects", "training_curves"),
    ),
)

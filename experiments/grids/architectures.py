"""Does DHM help on every backbone? The CIFAR table: architectures by plain, DSL and DHM.

    python -m experiments.run grid=architectures benchmark=cifar100 data.root=/data seeds=5 pool.gpus=all

On CIFAR 15 variants, hundreds of GPU hours for 5 seeds; on `digits` 9 small ones, about two minutes. The DHM paper's
own CIFAR-100 table is not sourced; plain figures of some backbones are, from the DKS authors.
"""

from experiments.benchmarks import Benchmark
from experiments.grid import GRIDS, Grid


def _backbones(benchmark: Benchmark) -> list[str]:
    """One of each family and size that can be trained in days; small ones where images are small."""
    if benchmark.name == "digits":
        return ["resnet8", "wrn_10_1", "densenet_10_6"]
    if benchmark.name == "imagenet":
        return ["resnet18", "resnet50"]
    return ["resnet32", "resnet110", "wrn_16_8", "wrn_28_10", "densenet_bc_100_12"]


architectures = GRIDS.register(
    "architectures",
    Grid(
        name="architectures",
        title="Architectures",
        question="Does DHM beat deep supervision (DSL), and DSL plain training, on every backbone?",
        reading="Each arm is compared with plain training of the same backbone, under that backbone's own recipe.",
        factors={"arch": _backbones, "method": ["plain", "dsl", "dhm"]},
        baseline={"method": "plain"},
        figures=("levels", "effects", "training_curves"),
    ),
)

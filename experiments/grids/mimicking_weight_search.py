"""Which mimicking weight and temperature are best, and do they beat the released ones?

    python -m experiments.run grid=mimicking_weight_search study.trials=40

40 trials on a part of the training images, then 3 variants on all of them; on `digits` about a minute and a half on
2 cores. The released defaults are alpha = 1, T = 1. On `digits` 40 images are held out and judge: enough to see how a
search goes, too few to tell which setting is best.
"""

from experiments.grid import GRIDS
from experiments.search import Range, Search

mimicking_weight_search = GRIDS.register(
    "mimicking_weight_search",
    Search(
        name="mimicking_weight_search",
        title="Search of mimicking weight and temperature",
        question="Which mimicking weight alpha and temperature T are best, and do they beat the released 1 and 1?",
        reading="The trials were judged by held-out training images, on one seed; the test images were looked at after "
        "the selection alone. What was found is compared with the released setting, and that with DSL: the same "
        "branches without mimicking.",
        factors={"method": ["dsl", "dhm"]},
        baseline={"method": "dsl"},
        arm={"method": "dhm"},
        space={
            "mimic.alpha": Range(low=0.05, high=5.0, log=True),
            "mimic.temperature": Range(low=0.5, high=8.0, log=True),
        },
        base={"data.val_fraction": 0.2},
        figures=("search", "training_curves"),
    ),
)

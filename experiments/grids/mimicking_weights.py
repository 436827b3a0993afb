"""How strongly should heads mimic each other, and at which temperature?

    python -m experiments.run grid=mimicking_weights

9 variants; on `digits` about two minutes for 5 seeds on 2 cores. The released defaults are alpha = 1, T = 1.
"""

from experiments.grid import GRIDS, Grid

mimicking_weights = GRIDS.register(
    "mimicking_weights",
    Grid(
        name="mimicking_weights",
        title="Mimicking weight and temperature",
        question="How does the error depend on the mimicking weight alpha and the temperature T?",
        reading="The baseline is DSL: the same branches without mimicking. DHM with alpha = 0 equals it bit for bit.",
        factors={
            "method": ["dsl", "dhm"],
            "mimic.alpha": [0.1, 0.5, 1.0, 2.0],
            "mimic.temperature": [1.0, 3.0],
        },
        baseline={"method": "dsl"},
        figures=("weights", "effects", "training_curves"),
    ),
)

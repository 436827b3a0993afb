"""Does DHM help more, or less, when labels are wrong?

    python -m experiments.run grid=label_noise

12 variants; on `digits` about two minutes for 5 seeds on 2 cores. A share of the training labels is replaced by another
class, drawn by the seed; test labels stay clean. The paper's figures on noisy labels are not sourced.
"""

from experiments.grid import GRIDS, Grid

label_noise = GRIDS.register(
    "label_noise",
    Grid(
        name="label_noise",
        title="Label noise",
        question="How does the gain of deep supervision and of DHM depend on the share of wrong training labels?",
        reading="Each arm is compared with plain training under the same noise. More noise keeps what was wrong.",
        factors={"method": ["plain", "dsl", "dhm"], "data.label_noise": [0.0, 0.2, 0.4, 0.6]},
        baseline={"method": "plain"},
        figures=("levels", "effects", "training_curves"),
    ),
)

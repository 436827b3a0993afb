"""Label smoothing: the label keeps 1 - e of the target, and all classes share e evenly.

Cross-entropy is linear in its target, so smoothing it by e is one more term, of weight e: what the cross-entropy to the
even distribution is above that to the label. `terms=[{name: label_smoothing, weight: 0.1}]` is e = 0.1, and equals
torch's `cross_entropy(label_smoothing=0.1)` of every head.
"""

import torch
from torch import Tensor

from dhm.losses.base import TERMS, Terms, of_each_head
from dhm.steps import Step


def label_smoothing(logits: Tensor, labels: Tensor, step: Step) -> Terms:
    """`label_smoothing/HEAD`: of every head."""
    logs = torch.log_softmax(logits, -1)
    of_label = logs.gather(-1, labels.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    return of_each_head("label_smoothing", (of_label - logs.mean(-1)).mean(1), step)


TERMS.register("label_smoothing", label_smoothing)

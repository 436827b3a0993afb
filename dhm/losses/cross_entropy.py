"""Cross-entropy of every head: `ce`, of which every objective consists in the first place."""

from torch import Tensor
from torch.nn import functional as F

from dhm.losses.base import TERMS, Terms, of_each_head
from dhm.steps import Step


def cross_entropy(logits: Tensor, labels: Tensor, step: Step) -> Terms:
    """`ce/HEAD`: cross-entropy of every head."""
    heads, batch, _ = logits.shape
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(heads), reduction="none")
    return of_each_head("ce", each.view(heads, batch).mean(1), step)


TERMS.register("ce", cross_entropy)

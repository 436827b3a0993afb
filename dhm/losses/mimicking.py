"""Mimicking: `mimic`, between pairs of heads, T^2 KL(teacher || student) (released utils/metric.py)."""

import torch
from torch import Tensor

from dhm.losses.base import TERMS, Terms, constants, scale_of
from dhm.steps import Step, pairs


def mimicking(logits: Tensor, labels: Tensor, step: Step) -> Terms:
    """`mimic/STUDENT.TEACHER`: T^2 KL(teacher || student) for the pairs of heads that the recipe wants."""
    mimic = step.recipe.mimic
    assert mimic is not None
    matrix = mimicking_matrix(
        logits, temperature=mimic.temperature, smoothing=mimic.smoothing, stop_gradient=mimic.stop_gradient
    )
    terms = pairs(mimic, step.heads)
    factors = [0.0 if f"{a}.{b}" in step.stopped else weight for a, b, weight in terms]
    names = tuple(f"mimic/{student}.{teacher}" for student, teacher, _ in terms)
    scale = scale_of(step, [(student, teacher) for student, teacher, _ in terms], logits, factors)
    row = {head: index for index, head in enumerate(step.heads)}
    places = tuple(row[student] * len(row) + row[teacher] for student, teacher, _ in terms)
    return Terms(names, matrix.flatten()[constants(places, torch.long, matrix.device)], scale)


def mimicking_matrix(
    logits: Tensor, *, temperature: float = 1.0, smoothing: float = 0.0, stop_gradient: bool = True
) -> Tensor:
    """T^2 KL(p_j || p_i) for every student i (row) and teacher j (column), averaged over the batch.

    One softmax a head serves all pairs.

    Args:
        logits: (H, B, C).
        temperature: T, by which logits are divided.
        stop_gradient: whether the gradient reaches students only.
        smoothing: e in (p + e) / (1 + C e), which the released code applies to both sides and which bounds the KL.

    Returns:
        (H, H), the diagonal 0.
    """
    if temperature != 1:
        logits = logits / temperature
    if smoothing > 0:
        classes = logits.shape[-1]
        probabilities = torch.softmax(logits, -1).add(smoothing).div(1 + classes * smoothing)
        logs = probabilities.log()
    else:
        logs = torch.log_softmax(logits, -1)
        probabilities = logs.exp()
    teachers, teacher_logs = (probabilities.detach(), logs.detach()) if stop_gradient else (probabilities, logs)
    # Differences of logs before the sum: the KL of heads that agree is lost in rounding otherwise.
    gaps = teacher_logs.unsqueeze(0) - logs.unsqueeze(1)
    matrix = (teachers.unsqueeze(0) * gaps).sum(-1).mean(-1)
    return matrix if temperature == 1 else matrix * temperature**2


TERMS.register("mimic", mimicking)

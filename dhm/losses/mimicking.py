"""Mimicking: `mimic`, between pairs of heads, T^2 KL(teacher || student) (released utils/metric.py)."""

import functools

import torch
from torch import Tensor

from dhm.losses.base import TERMS, Terms, scale_of
from dhm.recipe import MimicSpec
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
    return Terms(names, matrix.flatten()[_places(mimic, step.heads, matrix.device)], scale)


@functools.lru_cache(maxsize=256)
def _places(mimic: MimicSpec, heads: tuple[str, ...], device: torch.device) -> Tensor:
    """Where the pairs stand in the flat matrix of heads, (n,); kept, as each copy to a GPU would hold up the step."""
    row = {head: index for index, head in enumerate(heads)}
    chosen = [row[student] * len(heads) + row[teacher] for student, teacher, _ in pairs(mimic, heads)]
    with torch.inference_mode(mode=False):  # a tensor made in inference could not serve training later
        return torch.tensor(chosen, device=device, dtype=torch.long)


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

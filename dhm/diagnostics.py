"""Whether the heads agree: their predictions, and the gradients that they send into what they share.

The claim that mimicking gives heads "consistent optimization objectives" (abstract of arXiv 2003.10739) is measured by
three things: KL between the predictions of every ordered pair of heads, the share of images on which two heads say
the same, and the cosine between the gradients of two heads' losses with respect to the weights that both use.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, islice, permutations
from typing import cast

import torch
from torch import Tensor, nn

from dhm.data.dataset import Batch
from dhm.losses import TERMS, mimicking_matrix, weights
from dhm.network import BranchedNetwork, Heads, build_network
from dhm.recipe import BranchSpec
from dhm.steps import Step
from dhm.streams import stream_seed
from dhm.training import Callback, Training

EVAL_BATCH = 500
_INITIAL = "diagnostics/initial_kl/"


class Diagnostics(Callback):
    """Measures the agreement of heads every few epochs, and at the last; a network without side branches has none.

    - `diagnostics/kl/STUDENT.TEACHER`: KL(teacher || student) on the test images, in nats; T = 1, without smoothing.
    - `diagnostics/initial_kl/STUDENT.TEACHER`: the same at the first weights, once, with the first epoch measured.
      BatchNorm has no running statistics then, so each batch of test images is normalised by its own.
    - `diagnostics/agreement/A.B`: test images on which both heads predict the same class, in percent.
    - `diagnostics/gradient_cosine/A.B`: between the gradients of two heads' whole losses (`head_losses`), with respect
      to the stem and the stages up to the earlier of their forks; mean over a few batches of training images. 0 where
      a gradient is 0. Two heads that mimic each other tend to pull their shared weights opposite ways by that very
      term, so this falls once mimicking outweighs the cross-entropies.
    - `diagnostics/gradient_cosine_ce/A.B`: the same for the heads' cross-entropies, by which methods can be compared.
    - `diagnostics/gradient_cosine_variance/A.B`, `diagnostics/gradient_cosine_ce_variance/A.B`: over those batches
      (n - 1 in the denominator), if there are several.

    The batches are drawn once, from a stream of their own, without shifts and flips (random resized crops are drawn
    once as well), so that arms at one seed are measured on the same. Gradients are taken as
    in training, BatchNorm on the batch's own statistics, but without dropout, and with every branch forking. Nothing
    that training uses is changed: weights, running statistics, gradients, random streams, modes.

    Args:
        every: epochs between measurements.
        batches: on which gradients are taken, of the recipe's size, or of a replica's share; all there are where they
            are fewer.
    """

    def __init__(self, every: int = 1, batches: int = 2) -> None:
        for name, value in (("every", every), ("batches", batches)):
            if value < 1:
                raise ValueError(f"diagnostics.{name}={value}: must be at least 1")
        self._every, self._count = every, batches
        self._batches: list[Batch] = []

    @property
    def settings(self) -> dict[str, int]:
        """What it was made with."""
        return {"every": self._every, "batches": self._count}

    def on_start(self, training: Training) -> None:
        """Draw the batches on which gradients are taken."""
        self._batches = _fixed_batches(training, self._count) if len(training.recipe.heads) > 1 else []

    def measure(self, training: Training) -> dict[str, float]:
        """The figures of an epoch that is to be measured."""
        recipe, done = training.recipe, training.epoch + 1
        if len(recipe.heads) == 1 or (done % self._every and done != recipe.epochs):
            return {}
        ordered, unordered = list(permutations(recipe.heads, 2)), list(combinations(recipe.heads, 2))
        kl, same = prediction_agreement(training, training.network)
        whole, ce = torch.stack([gradient_cosines(training, *batch) for batch in self._batches], dim=1)
        figures = [("kl", kl, ordered), ("agreement", 100 * same, unordered)]
        for name, cosines in (("gradient_cosine", whole), ("gradient_cosine_ce", ce)):
            figures.append((name, cosines.mean(0), unordered))
            if len(cosines) > 1:
                figures.append((f"{name}_variance", cosines.var(0), unordered))
        if not any(name.startswith(_INITIAL) for record in training.history for name in record.metrics):
            # The first weights follow from the seed, so that a run which was resumed knows them as well.
            initial, _ = prediction_agreement(training, _first_network(training), batch_statistics=True)
            figures.append(("initial_kl", initial, ordered))
        return {
            f"diagnostics/{kind}/{a}.{b}": float(matrix[recipe.heads.index(a), recipe.heads.index(b)])
            for kind, matrix, pairs in figures
            for a, b in pairs
        }


@torch.inference_mode()
def prediction_agreement(
    training: Training, network: BranchedNetwork, *, batch_statistics: bool = False
) -> tuple[Tensor, Tensor]:
    """How far the heads' predictions for the test images agree (in a search, for those held out for validation).

    Args:
        batch_statistics: normalise each batch by itself, where there are no running statistics yet.

    Returns:
        KL(p_j || p_i) for student i (row) and teacher j, in nats, (H, H); and the share of images for which heads i
        and j predict the same class, (H, H). Both float64, on the host.
    """
    # A search does not look at the test images.
    images = training.held_out["test" if "test" in training.held_out else "val"]
    heads = len(training.recipe.heads)
    kl, same = torch.zeros(2, heads, heads, dtype=torch.float64, device=training.device)
    with _measuring(network, batch_statistics=batch_statistics):
        # as equal as can be: a last one of a single image could not be normalised by itself
        for batch, _ in images.batches(EVAL_BATCH):
            with training.autocast():
                logits = network(batch).stacked()
            kl += len(batch) * mimicking_matrix(logits.double())
            predicted = logits.argmax(-1)
            same += (predicted[:, None] == predicted).sum(-1)
    return (kl / len(images)).cpu(), (same / len(images)).cpu()


def gradient_cosines(training: Training, images: Tensor, labels: Tensor) -> Tensor:
    """Cosines between the gradients of every two heads' losses, with respect to the weights that both use.

    Args:
        images, labels: a batch, normalised.

    Returns:
        (2, H, H), of the whole losses and of the cross-entropies, float64, on the host; diagonals mean nothing.
    """
    network, recipe = training.network, training.recipe
    before = [_before(network, branch) for branch in recipe.branches]
    # The main branch shares nothing beyond the last fork.
    before = [max(before, key=len), *before]
    step = Step(recipe=recipe, heads=recipe.heads, moment=training.epoch + 1)
    with _measuring(network, batch_statistics=True):
        with training.autocast():
            heads = network(images)
        logits = heads.stacked().detach().requires_grad_()
        whole, ce = head_losses(logits, labels, step)
        found = [_cosines(_gradients(whole, logits, heads, before))]
        found.append(found[0] if whole is ce else _cosines(_gradients(ce, logits, heads, before)))
    return torch.stack(found)


def head_losses(logits: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Each head's part of the objective: its cross-entropy and, weighted, the terms of which it is the student.

    The parts add up to the objective, but for registered terms whose names end in no head.

    Args:
        logits: (H, B, C).
        labels: classes (B,).

    Returns:
        the whole parts (H,), and the cross-entropies alone (H,): the same tensor where there is nothing else.
    """
    place = {head: index for index, head in enumerate(step.heads)}
    parts: dict[str, Tensor] = {}
    for kind, weight in weights(step.recipe).items():
        factor = weight * step.warmth if kind == "mimic" else weight
        if factor == 0:
            continue
        terms = TERMS.get(kind)(logits, labels, step)
        values = terms.values if terms.scale is None else terms.values * terms.scale
        students = [place.get(name.rpartition("/")[2].partition(".")[0]) for name in terms.names]
        mine = torch.tensor([[index == student for student in students] for index in range(len(place))])
        parts[kind] = factor * (mine.to(values) @ values)
    return (sum(parts.values(), torch.zeros_like(parts["ce"])) if len(parts) > 1 else parts["ce"]), parts["ce"]


def _gradients(losses: Tensor, logits: Tensor, heads: Heads, before: list[list[nn.Parameter]]) -> list[Tensor]:
    """The gradient of each head's loss with respect to the parameters before its fork, as one vector a head.

    Args:
        losses: (H,), as functions of `logits`.
        logits: (H, B, C), the values of `heads`, cut off from the network.
    """
    outputs = (heads.main, *heads.sides)
    rows = []
    for own, (loss, parameters) in enumerate(zip(losses.unbind(), before, strict=True)):
        (pulls,) = torch.autograd.grad(loss, logits, retain_graph=True)
        # Mostly a head's loss pulls its own logits alone; the way back through the other branches is then spared.
        pulled = [
            (out, pull.to(out.dtype))
            for head, (out, pull) in enumerate(zip(outputs, pulls, strict=True))
            if head == own or bool(pull.any())
        ]
        parts = torch.autograd.grad(
            [out for out, _ in pulled], parameters, [pull for _, pull in pulled], retain_graph=True
        )
        rows.append(torch.cat([part.flatten() for part in parts]))
    return rows


def _cosines(rows: list[Tensor]) -> Tensor:
    """Cosines (H, H) between gradients, of which two are compared over the parameters that both have."""
    # Parameters stand in the order of the forward pass: what two heads share comes first in both gradients.
    vectors = nn.utils.rnn.pad_sequence(rows, batch_first=True).double()
    lengths = torch.tensor([len(row) for row in rows])
    shared = torch.minimum(lengths[:, None], lengths)
    cosines = torch.zeros(shared.shape, dtype=torch.float64)
    for length in lengths.unique().tolist():
        products = vectors[:, :length] @ vectors[:, :length].T
        norms = products.diagonal().sqrt()
        found = products / torch.outer(norms, norms).clamp(min=torch.finfo(torch.float64).tiny)
        cosines = torch.where(shared == length, found.cpu(), cosines)
    return cosines


@contextmanager
def _measuring(network: BranchedNetwork, *, batch_statistics: bool) -> Iterator[None]:
    """Evaluation mode, with BatchNorm on the batch's own statistics if asked; afterwards all is as it was.

    Maps are kept: several backward passes go through them, and computing them again serves but one.

    A BatchNorm that has no running statistics normalises by the batch in evaluation mode too, and one that is
    synchronised over replicas then does so by itself: the others do not take part in a measurement.
    """
    modes = [(module, module.training) for module in network.modules()]
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    running = [(part.running_mean, part.running_var) for part in norms]
    recompute = network.recompute
    try:
        network.eval()
        network.recompute = False
        for part in norms if batch_statistics else ():
            part.running_mean = part.running_var = None
        yield
    finally:
        network.recompute = recompute
        for module, mode in modes:
            module.training = mode
        for part, (mean, variance) in zip(norms, running, strict=True):
            part.running_mean, part.running_var = mean, variance


def _before(network: BranchedNetwork, branch: BranchSpec) -> list[nn.Parameter]:
    """The parameters before a branch's node, in the order of the forward pass."""
    backbone = network.backbone
    parts = [backbone.stem, *backbone.stages[: branch.after]]
    if branch.block:
        parts[-1] = cast("nn.Sequential", parts[-1])[: branch.block]
    return [parameter for part in parts for parameter in part.parameters()]


def _fixed_batches(training: Training, count: int) -> list[Batch]:
    """Batches of training images, the same at every epoch and for every arm of a seed."""
    recipe = training.recipe
    plain = dataclasses.replace(recipe.data, pad=0, flip=False)
    size = -(-recipe.optim.batch_size // recipe.replicas)
    images = training.data.open(plain, training.seed, batch_size=size, device=training.device)
    return list(islice(images.train.epoch(stream_seed(training.seed, "diagnostics"), 0), count))


def _first_network(training: Training) -> BranchedNetwork:
    """The network at its first weights."""
    data = training.data
    # Layers draw weights from torch's global stream before they are given their own.
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            training.recipe, in_channels=data.channels, num_classes=data.num_classes, seed=training.seed
        )
    return network.to(training.device)

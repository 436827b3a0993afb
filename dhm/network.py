"""A backbone with its side branches: one forward pass, the logits of every head."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dhm.backbones import ARCHITECTURES, Backbone
from dhm.backbones.base import seed_dropout
from dhm.branches import SideBranch
from dhm.recipe import Recipe
from dhm.recompute import recomputed
from dhm.streams import own_stream, stream, stream_seed


class Heads(NamedTuple):
    """Logits (B, num_classes) of the main branch, and of each side branch in the order of `Recipe.heads`."""

    main: Tensor
    sides: tuple[Tensor, ...]

    def stacked(self) -> Tensor:
        """All logits as (H, B, num_classes), the main branch first; in float32 where they are of lower precision."""
        logits = torch.stack((self.main, *self.sides))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class BranchedNetwork(nn.Module):
    """The network that is trained. Side branches are dropped for inference: `main_only`.

    Attributes:
        backbone: the main branch.
        sides: side branches by the names of their heads.
        recompute: whether the stages' maps are computed again for the backward pass instead of being kept for it.
    """

    def __init__(self, backbone: Backbone, branches: dict[str, SideBranch]) -> None:
        super().__init__()
        self.backbone = backbone
        self.sides = nn.ModuleDict(branches)
        self.recompute = False
        self._forks: dict[tuple[int, int], list[str]] = {}
        for name, branch in branches.items():
            self._forks.setdefault((branch.spec.after, branch.spec.block), []).append(name)

    def forward(self, images: Tensor, heads: tuple[str, ...] | None = None) -> Heads:
        """Logits of every head for images (B, C, H, W), or of some heads, the main branch always among them."""
        maps = self.backbone.stem(images)
        sides: list[Tensor] = []
        # Branches are kept in the order of their nodes, so their logits come in the order of their names.
        for number, stage in enumerate(self.backbone.stages, start=1):
            for block, part in enumerate(self._parts(number, stage), start=1):
                maps = recomputed(part, maps) if self.recompute else part(maps)
                sides.extend(self._fork((number, block), maps, heads))
            sides.extend(self._fork((number, 0), maps, heads))
        return Heads(self.backbone.classifier(maps), tuple(sides))

    def _parts(self, number: int, stage: nn.Module) -> Iterable[nn.Module]:
        """A stage in one piece, or block by block where a branch forks inside it."""
        inside = any(after == number and block for after, block in self._forks)
        return cast("nn.Sequential", stage) if inside else (stage,)

    def _fork(self, node: tuple[int, int], maps: Tensor, heads: tuple[str, ...] | None) -> list[Tensor]:
        names = self._forks.get(node, ())
        return [self.sides[name](maps, self.recompute) for name in names if heads is None or name in heads]

    def main_only(self) -> Backbone:
        """The main branch alone: what plain training would have built, and all that inference needs."""
        return self.backbone

    def seed_dropout(self, seed: int, epoch: int, device: torch.device, replica: int = 0) -> None:
        """Give the dropout of every head its own stream for an epoch, and for each replica of the run."""
        for name, part in (("main", self.backbone), *self.sides.items()):
            seed_dropout(part, stream(seed, "dropout", name, epoch, *own_stream(replica), device=device))


def build_network(recipe: Recipe, *, in_channels: int, num_classes: int, seed: int | None = None) -> BranchedNetwork:
    """The network of a recipe, its weights drawn from the seed: the main branch's from one stream, each side branch's
    from its own.

    Args:
        seed: without one the weights are left as torch makes them (for counting, on the meta device).

    Raises:
        ValueError: an unknown architecture, or a branch that it cannot have.
    """
    architecture = ARCHITECTURES.get(recipe.arch)
    with _drawing(seed, "main"):
        backbone = architecture.build(in_channels=in_channels, num_classes=num_classes, dropout=recipe.dropout)
    branches: dict[str, SideBranch] = {}
    for name, spec in zip(recipe.heads[1:], recipe.branches, strict=True):
        with _drawing(seed, name):
            branches[name] = SideBranch(backbone, spec)
    if seed is not None:
        for name, part in (("main", backbone), *branches.items()):
            backbone.initialise(part, stream(seed, "init", name))
    return BranchedNetwork(backbone, branches)


@contextlib.contextmanager
def _drawing(seed: int | None, head: str) -> Iterator[None]:
    """What torch draws while a part is built follows from the seed too: an architecture may have parameters that its
    initialisation leaves alone."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "build", head))
        yield

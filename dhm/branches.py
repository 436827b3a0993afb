"""Side branches: forked from a node, built from the backbone's own stages, ended as the backbone ends."""

from torch import Tensor, nn

from dhm.backbones.base import Architecture, Backbone
from dhm.recipe import BranchSpec
from dhm.recompute import recomputed


class SideBranch(nn.Module):
    """The stages that follow a node once more, with their own weights, depth and width, and a classifier.

    Raises:
        ValueError: the backbone has no such node, or the branch has not one depth for each stage that follows it.
    """

    def __init__(self, backbone: Backbone, spec: BranchSpec) -> None:
        super().__init__()
        check_branch(spec, backbone.depths)
        self.spec = spec
        self.stages = nn.ModuleList()
        channels = backbone.node_channels(spec.after - 1, spec.block)
        # From a node inside a stage a branch first goes on with the rest of that stage.
        first = spec.after - 1 if spec.block else spec.after
        for index, blocks in enumerate(spec.blocks, start=first):
            inside = bool(spec.block) and index == first
            stage, channels = backbone.stage(
                index, in_channels=channels, blocks=blocks, width=spec.width, continued=inside
            )
            self.stages.append(stage)
        self.classifier = backbone.classifier_for(channels)

    def forward(self, maps: Tensor, recompute: bool = False) -> Tensor:
        """The node's maps (B, C, H, W) to logits (B, num_classes). For `recompute` see `BranchedNetwork`."""
        for stage in self.stages:
            maps = recomputed(stage, maps) if recompute else stage(maps)
        logits: Tensor = self.classifier(maps)
        return logits


def check_branch(spec: BranchSpec, depths: tuple[int, ...]) -> None:
    """A ValueError where a branch does not fit a backbone.

    Args:
        depths: blocks of each stage of the backbone.
    """
    stages = len(depths)
    nodes = ", ".join(str(node) for node in range(1, stages))
    if spec.after > stages or (spec.after == stages and not spec.block):
        last = " (a branch after the last stage would have no stage of its own)" if spec.after == stages else ""
        raise ValueError(f"no branch can fork after stage {spec.after}{last}: choose a node among {nodes}")
    inside = depths[spec.after - 1] - 1
    if spec.block > inside:
        raise ValueError(
            f"no branch can fork after block {spec.block} inside stage {spec.after}, which has {inside + 1} block(s): "
            + (f"choose a block from 1 to {inside}" if inside else f"choose a node among {nodes}")
        )
    following = stages - spec.after + (1 if spec.block else 0)
    if len(spec.blocks) != following:
        where = f"block {spec.block} of stage {spec.after}" if spec.block else f"stage {spec.after}"
        raise ValueError(
            f"a branch after {where} of {stages} has {following} stage(s) of its own, "
            f"so blocks needs {following} number(s), not {list(spec.blocks)}"
        )


def default_branch(architecture: Architecture, depths: tuple[int, ...], after: int, block: int = 0) -> BranchSpec:
    """The branch at a node: the architecture's own where it has one, else as deep as what it stands beside.

    Args:
        depths: blocks of each stage of the backbone.
        block: of a node inside stage `after`.
    """
    for branch in architecture.branches:
        if (branch.after, branch.block) == (after, block):
            return branch
    beside = (depths[after - 1] - block, *depths[after:]) if block and after <= len(depths) else depths[after:]
    spec = BranchSpec(after=after, block=block, blocks=tuple(max(1, blocks) for blocks in beside) or (1,))
    check_branch(spec, depths)
    return spec

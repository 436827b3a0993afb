"""Side branches: forked from a node, built from the backbone's own stages, ended as the backbone ends."""

from torch import Tensor, nn

from dhm.backbones.base import Architecture, Backbone
from dhm.recipe import BranchSpec


class SideBranch(nn.Module):
    """The stages that follow a node once more, with their own weights, depth and width, and a classifier.

    Raises:
        ValueError: the backbone has no such node, or the branch has not one depth for each stage that follows it.
    """

    def __init__(self, backbone: Backbone, spec: BranchSpec) -> None:
        super().__init__()
        check_branch(spec, len(backbone.info))
        self.spec = spec
        self.stages = nn.ModuleList()
        channels = backbone.info[spec.after - 1].channels
        for index, blocks in enumerate(spec.blocks, start=spec.after):
            stage, channels = backbone.stage(index, in_channels=channels, blocks=blocks, width=spec.width)
            self.stages.append(stage)
        self.classifier = backbone.classifier_for(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """The node's maps (B, C, H, W) to logits (B, num_classes)."""
        for stage in self.stages:
            maps = stage(maps)
        logits: Tensor = self.classifier(maps)
        return logits


def check_branch(spec: BranchSpec, stages: int) -> None:
    """A ValueError where a branch does not fit a backbone of so many stages."""
    if spec.after >= stages:
        nodes = ", ".join(str(node) for node in range(1, stages))
        last = " (a branch after the last stage would have no stage of its own)" if spec.after == stages else ""
        raise ValueError(f"no branch can fork after stage {spec.after}{last}: choose a node among {nodes}")
    following = stages - spec.after
    if len(spec.blocks) != following:
        raise ValueError(
            f"a branch after stage {spec.after} of {stages} has {following} stage(s) of its own, "
            f"so blocks needs {following} number(s), not {list(spec.blocks)}"
        )


def default_branch(architecture: Architecture, depths: tuple[int, ...], after: int) -> BranchSpec:
    """The branch at a node: the architecture's own where it has one, else as deep as the stages that it stands beside.

    Args:
        depths: blocks of each stage of the backbone.
    """
    for branch in architecture.branches:
        if branch.after == after:
            return branch
    spec = BranchSpec(after=after, blocks=depths[after:] or (1,))
    check_branch(spec, len(depths))
    return spec

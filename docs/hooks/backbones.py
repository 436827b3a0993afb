"""The table of registered backbones, made of what they say of themselves."""

from collections.abc import Iterator
from typing import Any

import torch

from dhm import cost  # its `on_meta` would be taken for an event of MkDocs
from dhm.backbones import ARCHITECTURES
from dhm.backbones.imagenet_resnet import ImageNetResNet
from dhm.recipe import BranchSpec, DataSpec, Recipe

MARK = "<!-- backbones -->"
HEADINGS = ("backbone", "of", "stages: blocks × channels (stride)", "parameters", "with side branches", "side branches")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """See MkDocs' event of this name."""
    return markdown.replace(MARK, "\n".join(_table())) if MARK in markdown else markdown


def _table() -> Iterator[str]:
    headings = (
        "backbone",
        "of",
        "stages: blocks × channels (stride)",
        "parameters",
        "with side branches",
        "side branches",
    )
    yield f"| {' | '.join(headings)} |"
    yield "|---|---|---|---:|---:|---|"
    for name in ARCHITECTURES.names():
        architecture = ARCHITECTURES.get(name)
        with torch.device("meta"):
            backbone = architecture.build(num_classes=10)
        classes = 1000 if architecture.family is ImageNetResNet else 100
        recipe = Recipe(arch=name, epochs=1, data=DataSpec(name="cifar100"), branches=architecture.branches)
        network = cost.on_meta(recipe, num_classes=classes)
        stages = ", ".join(f"{stage.depth} × {stage.channels} ({stage.stride})" for stage in backbone.info)
        whose = "released code" if architecture.released else "ours, small"
        branches = "; ".join(map(_branch, architecture.branches))
        counts = [sum(weight.numel() for weight in part.parameters()) for part in (network.main_only(), network)]
        yield f"| `{name}` | {whose} | {stages} | {counts[0]:,} | {counts[1]:,} | {branches} |"


def _branch(branch: BranchSpec) -> str:
    width = "" if branch.width == 1 else f", width {branch.width:g}"
    return f"after {branch.node}: blocks {'+'.join(map(str, branch.blocks))}{width}"

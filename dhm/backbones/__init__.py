"""Backbones by name. Every file of a family in this folder is found and registers its architectures."""

import importlib
import pkgutil

from dhm.backbones.base import ARCHITECTURES, Architecture, Backbone, StageInfo

__all__ = ["ARCHITECTURES", "Architecture", "Backbone", "StageInfo"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

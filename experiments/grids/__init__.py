"""The grids. Every file in this folder registers one; a user's own are YAML files found by `grid_dir=`."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

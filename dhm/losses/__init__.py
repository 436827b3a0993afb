"""The objective and its terms by name. Every file of a term in this folder is found and registers it."""

import importlib
import pkgutil

from dhm.losses.base import TERMS, Term, Terms
from dhm.losses.mimicking import mimicking_matrix
from dhm.losses.objective import Loss, objective, weights

__all__ = ["TERMS", "Loss", "Term", "Terms", "mimicking_matrix", "objective", "weights"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

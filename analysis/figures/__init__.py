"""Figures, one a file: `build(grid) -> Figure`, found by the file's name."""

"""Tables, one a file: `build(grid) -> Table`, found by the file's name. `coverage` tells of all grids at once."""

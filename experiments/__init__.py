"""The study: grids of recipes, the scheduler that runs them on a pool of devices, and the record that they leave."""

"""Pools: one file for each way of running cells."""

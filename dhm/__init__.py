"""The method: plain training, deep supervision and dynamic hierarchical mimicking, on backbones built by stages."""

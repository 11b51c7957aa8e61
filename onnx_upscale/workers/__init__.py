"""workers: statistics of samples in several processes, here or on a cluster."""

from onnx_upscale.workers.team import Team, gather

__all__ = ["Team", "gather"]

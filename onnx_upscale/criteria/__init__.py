"""Pruning criteria: which channels of a model matter least."""

from __future__ import annotations

from onnx_upscale.criteria.calibration import DataSource
from onnx_upscale.criteria.images import Images
from onnx_upscale.criteria.make import SCOPES, mask
from onnx_upscale.criteria.table import CRITERIA

__all__ = ["CRITERIA", "SCOPES", "DataSource", "Images", "mask"]

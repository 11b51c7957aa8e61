"""Pruning criteria: which channels of a model matter least."""

from __future__ import annotations

from onnx_upscale.criteria.make import SCOPES, mask
from onnx_upscale.criteria.table import CRITERIA
from onnx_upscale.samples import DataSource, Images

__all__ = ["CRITERIA", "SCOPES", "DataSource", "Images", "mask"]

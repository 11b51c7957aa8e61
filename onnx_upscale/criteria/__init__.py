"""Pruning criteria: which channels of a model matter least."""

from __future__ import annotations

from onnx_upscale.criteria.make import Scored, score
from onnx_upscale.criteria.sites import Sites, find_sites
from onnx_upscale.criteria.table import CRITERIA, MOST_SAMPLES, Subject
from onnx_upscale.samples import DataSource, Images

__all__ = [
    "CRITERIA",
    "MOST_SAMPLES",
    "DataSource",
    "Images",
    "Scored",
    "Sites",
    "Subject",
    "find_sites",
    "score",
]

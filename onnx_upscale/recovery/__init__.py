"""recovery: new weights for readers that lose channels, in closed form."""

from __future__ import annotations

from onnx_upscale.recovery.moments import Moments
from onnx_upscale.recovery.recover import Recovered, recover
from onnx_upscale.recovery.repair import Repair, repair

__all__ = ["Moments", "Recovered", "Repair", "recover", "repair"]

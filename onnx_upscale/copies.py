"""The operators of ONNX that move channels and compute nothing."""

COPIES = frozenset({"Concat", "Gather", "Pad", "Slice", "Split"})
"""Those that the optimizer adds, and that reports count."""

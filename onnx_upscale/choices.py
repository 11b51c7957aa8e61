"""What options may be, and what they are unless somebody says otherwise.

It stands apart from what the options are for, which takes long to import: the command line helps,
completes and refuses without that.
"""

from __future__ import annotations

STRATEGIES = ("auto", "upscale", "gather", "constrained")
"""How readers that want different channels get along."""
TARGETS = ("cpu", "cpu-avx512", "cpu-avx2", "cpu-arm64", "cuda")
"""Whose costs are built in; `cpu` is the kind of CPU at hand."""
EXTERNAL_DATA = ("auto", "always", "never")
"""Whether weights go to a file beside the model."""

TUNE_SECONDS = 60.0
"""How long measuring the choices of `auto` may take."""

RTOL, ATOL = 1e-4, 1e-6
"""How much equal models may differ: as a share of the largest value of an output, and besides."""

PROVIDERS = ("cpu", "cuda", "tensorrt")
"""Where models are compared."""
PRICED = ("cpu", "cuda")
"""What can be priced."""
PRECISIONS = ("float32", "float16")
"""The real numbers that it is priced for."""

SIDES = ("input", "output")
"""What sides of a layer are called in mask files."""
CRITERIA = ("l1", "l2", "lamp", "fpgm", "hrank", "bn", "random", "reconstruction")
"""By what channels are chosen."""
SCOPES = ("local", "global")
"""Whether a share is one of each layer, or of all together."""
FORMATS = ("torch", "torch-pruning", "upscale", "nni")
"""Of which other tools masks can be taken over."""

SIZES = ("latency", "macs", "params")
"""Goals that say how small or fast a model must be."""
LIMITS = ("agreement", "error", "score")
"""Goals that say how near, or how good, it must stay: then it is as fast as it can be."""
GOALS = (*SIZES, *LIMITS)
"""All goals."""
MODES = ("joint", "agreement", "freedom")
"""Whether readers of a segment may give up channels each by itself, must all give up the same, or
only do so each by itself."""

STRENGTH = 1e-2
"""How much weights are pulled to what they were."""
RECOVERED, PRUNED = 256, 512
"""How many samples are used at most to recover, and to prune."""

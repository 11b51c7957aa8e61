"""Why less leaves than masks allow, and why models are not exported: what a person found out."""

_BOTH = ("input", "output")

REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "llama|mistral|qwen|gemma|hf/phi|vit_pe_",
        _BOTH,
        "rotary embeddings: queries and keys of all heads lose the same channels, or none",
    ),
    (
        "hf/deberta$",
        _BOTH,
        "relative positions are multiplied with the same queries and keys: heads stay in step",
    ),
    ("deberta_v2", _BOTH, "relative positions are multiplied with the same queries and keys"),
    (
        "wav2vec2|squeezebert|cpubone",
        _BOTH,
        "a grouped convolution on a residual stream reads all of it",
    ),
    (
        "gmlp",
        _BOTH,
        "one half of a gate is normalized, which reads all of it, and the other half stays with it",
    ),
    (
        "timm/coat",
        _BOTH,
        "queries are multiplied by convolved values, channel by channel: heads stay in step",
    ),
    (
        "davit",
        ("output",),
        "attention between channels: a softmax reads all keys, and values stay with them",
    ),
    ("efficientvit_b", ("output",), "linear attention: queries, keys and values in one axis stay"),
    (
        "swinv2|swin_v2",
        ("output",),
        "queries and keys are divided by their norms, which read more than their product",
    ),
    (
        "swiftformer",
        _BOTH,
        "a norm is repeated over all channels by Expand before the division, which keeps them",
    ),
    (
        "starnet|darknet|focalnet|nextvit|tf_efficientnet",
        ("input",),
        "a residual stream has the same channels from end to end, though later readers want fewer",
    ),
    (
        "raft",
        ("input",),
        "a recurrent state has what any reader wants, and each of its gates makes all of that",
    ),
    (
        "res2ne",
        _BOTH,
        "parts of a split are added to each other: all keep what any of their readers wants",
    ),
    (
        "convmixer",
        ("output",),
        "depthwise convolutions pad constant channels: by their values, some are constant again",
    ),
    (
        "efficientnet_cc",
        ("input",),
        "weights that are mixed at run time read and write all channels",
    ),
    (
        "sam2",
        ("output",),
        "queries are pooled as one axis of all heads, which keeps heads in step",
    ),
    (
        "halonet",
        ("output",),
        "relative positions are multiplied with the queries of all heads, which stay in step",
    ),
    (
        "efficientvim",
        ("output",),
        "states of a state space lie where a pointwise convolution has its places, and stay",
    ),
    (
        "vit_tiny_r",
        ("output",),
        "groups that are constant are padded with another value in front of a pooling",
    ),
    ("sequencer", _BOTH, "shapes behind LSTM take a run, which this sweep leaves out for `gather`"),
    (
        "nasnetalarge|tf_efficientnet_lite0",
        _BOTH,
        "shapes behind padding take a run, which this sweep leaves out for `gather`",
    ),
    (
        "vit_d[wp]+ee",
        ("output",),
        "differential attention: heads are split once more, into pairs, and stay in step",
    ),
    ("nest_", ("output",), "heads are merged as the inner axis, which keeps them in step"),
    (
        "samvit",
        _BOTH,
        "heads are merged with windows before queries, keys and values are taken apart",
    ),
    (
        "fasterrcnn",
        ("input",),
        "a ScatterElements puts boxes of all levels back in order, and keeps their channels",
    ),
    ("xcit", ("output",), "attention between channels: heads that are normalized stay in step"),
)
"""A pattern of names, the sides of the masks, and the reason; the first that fits counts."""

NOT_EXPORTED: tuple[tuple[str, str], ...] = (
    ("tracing a dynamo-optimized|trace a dynamo-optimized", "torch: compiled by its own package"),
    ("adaptive_avg_pool2d, output size", "older exporter: adaptive pooling to no factor"),
    ("output OrtValue provided", "older exporter: what it makes does not run in onnxruntime"),
    (
        "UnsupportedOperatorError|Unsupported: ONNX export of",
        "older exporter: an operator that it lacks",
    ),
    ("TorchExportError", "newer exporter: torch.export cannot trace it"),
    ("takes too long", "more than 240 s of CPU time"),
)
"""A pattern of messages, and what they say in short."""

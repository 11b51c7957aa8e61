"""Why operators have no rule: the other half of the table.

What is named here keeps its channels, and reports say why. An operator that gets a rule is taken
out of its line. `tools/operators.py` makes docs/operators.md of both halves, and a test fails for
an operator that is in neither.
"""

from __future__ import annotations

NO_RULE = "no rule for this operator"
"""The reason of those that could lose channels, if somebody wrote how."""

_STANDARD = {
    NO_RULE: "CausalConvWithState CumProd DeformConv GridSample "
    "LinearAttention MaxRoiPool RoiAlign SwiGLU",
    "each of its results depends on all channels": "Det DFT Hardmax LRN STFT",
    "which positions it takes depends on values": "Compress NonMaxSuppression NonZero TopK Unique",
    "it takes or puts values by position": "CenterCropPad Col2Im GatherElements GatherND MaxUnpool "
    "ReverseSequence Scatter ScatterElements ScatterND TensorScatter Trilu",
    "its input counts channels": "NegativeLogLikelihoodLoss OneHot SoftmaxCrossEntropyLoss",
    "it makes its result from sizes and a few numbers": "AffineGrid BlackmanWindow Constant "
    "ConstantOfShape EyeLike HammingWindow HannWindow MelWeightMatrix Range Size",
    "it draws at random": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike",
    "it works on bits": "BitCast",
    "it works on text or files": "ImageDecoder RegexFullMatch StringConcat StringNormalizer "
    "StringSplit TfIdfVectorizer",
    "it works on a sequence or an optional": "ConcatFromSequence Optional OptionalGetElement "
    "OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert "
    "SequenceLength SequenceMap SplitToSequence",
    "it has a graph of its own": "If Loop Scan",
}

_MICROSOFT = {
    NO_RULE: "BiasDropout BitmaskBiasDropout BitmaskDropout "
    "ConvTransposeWithDynamicPads CropAndResize DecoderAttention ExpandDims FusedMatMulActivation "
    "GatedAdd GemmFastGelu GridSample GroupNorm MaxpoolWithMask "
    "Pad ScaledSiLU SkipGroupNorm SwiGLU TorchEmbedding "
    "TransposeMatMul UnfoldTensor",
    "it is one step of a network that was fused for inference": "BranchwiseRMSNorm "
    "CausalConvWithState ConvStateReplay DecoderMaskedMultiHeadAttention "
    "DecoderMaskedSelfAttention DynamicSparseAttention EngramGate GatedDeltaNet "
    "GatedDeltaNetStateReplay GatedRMSNorm GatedRelativePositionBias GemmaRotaryEmbedding "
    "HyperConnectionLowRankMix HyperConnectionPostMix HyperConnectionPreMix LinearAttention "
    "LinearAttentionGate LongformerAttention MRotaryEmbedding Mamba2Verify MoE MoEGroupRouter "
    "MoEPacked PackedAttention PackedMultiHeadAttention PackedSparseAttentionIndexer "
    "PackedSparseAttentionIndexerMerge PagedAttention RMSNormRotary RelativePositionBias "
    "RouterGateUpProj SparseAttention SparseAttentionIndexer SparsePagedAttention "
    "VarlenCausalConvWithState",
    "it is recurrent": "AttnLSTM DynamicQuantizeLSTM",
    "quantized with a range or a zero point of its own": "DequantizeLinear DynamicQuantizeMatMul "
    "MatMulInteger16 MatMulIntegerToFloat MulInteger QAttention QEmbedLayerNormalization "
    "QLinearConv QLinearReduceMean QLinearWhere QuantizeLinear ReduceSumInteger",
    "its weights are quantized in blocks or packed": "DequantizeBFP GatherBlockQuantized "
    "GatherPacked GemmFloat8 MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight "
    "MatMulBnb4 MatMulFpQ4 MatMulNBitsMlp MatMulNBitsQLoRA MatMulNBitsQkv MatMulPacked QMoE "
    "QuantizeBFP",
    "its tensors are laid out for a device": "DequantizeWithOrder NhwcConv NhwcFusedConv "
    "NhwcMaxPool QOrderedAttention QOrderedGelu QOrderedLayerNormalization "
    "QOrderedLongformerAttention QOrderedMatMul QuantizeWithOrder",
    "each of its results depends on all channels": "BiasSoftmax CDist ComplexMul ComplexMulConj "
    "DynamicTimeWarping Inverse Irfft IsAllFinite Rfft",
    "which positions it takes depends on values": "BifurcationDetector RemovePadding "
    "RestorePadding SpeculativePrefixCommit Unique",
    "it takes or puts values by position": "GatherND Trilu",
    "it makes its result from sizes and a few numbers": "Range",
    "its matrix is sparse": "SparseToDenseMatMul",
    "it works on text or files": "MurmurHash3 NGramHashMapping NGramRepeatBlock Tokenizer "
    "VarlenNGramHashMapping WordConvEmbedding",
    "it has a graph of its own": "BeamSearch GreedySearch Sampling WhisperBeamSearch",
    "only a device or a test knows what it does": "EPContext SampleOp Snpe",
}

UNRULED: dict[tuple[str, str], str] = {
    (domain, operator): reason
    for domain, reasons in (("", _STANDARD), ("com.microsoft", _MICROSOFT))
    for reason, operators in reasons.items()
    for operator in operators.split()
}
"""The reason for each operator without a rule, by domain and type; a rule comes first."""

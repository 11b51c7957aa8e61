"""Prices of layers, copies and kernels, each term reckoned by hand."""

from __future__ import annotations

import dataclasses

import pytest

from formulas import formulas
from onnx_upscale.grain import Grain
from onnx_upscale.prices import CopyWork, Counts, Kernel, LayerWork
from onnx_upscale.prices.kernels import FAMILIES, byte_convolution, features


class TestLayers:
    """Every term of the price of a layer, by hand: 10 places, and a window of 9 or of 1."""

    @pytest.mark.parametrize(
        ("inputs", "outputs", "macs"),
        [
            (16, 8, 16 * 8),
            (16, 4, 16 * 8),  # Whole blocks are computed.
            (16, 12, 16 * 16),
            (12, 8, 16 * 8),
            (20, 20, 24 * 24),
            (7, 8, 7 * 8),  # Fewer inputs than a block are read as they are.
            (4, 12, 4 * 16),
            (16, 5, 16 * 5),  # No multiple of four leaves the blocks.
            (9, 8, 9 * 8),
            (7, 9, 7 * 9),
        ],
    )
    def test_multiply_adds_of_a_window(self, inputs: int, outputs: int, macs: int) -> None:
        prices = formulas(seconds_per_mac=2.0, few_pointwise=100.0, unaligned_pointwise=100.0)
        assert prices.layer(LayerWork(False, inputs, outputs, 10, 9, 4)) == 2 * 10 * 9 * macs

    @pytest.mark.parametrize(
        ("inputs", "outputs", "macs"),
        [
            (16, 12, 16 * 16),
            (8, 8, 8 * 8),
            (7, 12, 7 * 16 * 3),
            (16, 5, 16 * 5 * 5),
            (9, 8, 9 * 8 * 5),
            (7, 9, 7 * 9 * 5),
        ],
    )
    def test_multiply_adds_without_a_window(self, inputs: int, outputs: int, macs: int) -> None:
        prices = formulas(
            seconds_per_mac=2.0, few_pointwise=3.0, unaligned=100.0, unaligned_pointwise=5.0
        )
        assert prices.layer(LayerWork(False, inputs, outputs, 10, 1, 4)) == 2 * 10 * macs

    def test_what_leaving_the_blocks_takes(self) -> None:
        odd, even = LayerWork(False, 16, 5, 10, 9, 4), LayerWork(False, 16, 8, 10, 9, 4)
        odd_point = LayerWork(False, 16, 5, 10, 1, 4)
        for change, window, point in (
            ({"seconds_per_mac": 1.0, "unaligned": 7.0}, 7 * 10 * 9 * 16 * 5, 10 * 16 * 5),
            ({"seconds_per_unrolled": 1.0}, 10 * 9 * 16, 0),
            ({"seconds_per_node": 1.0}, 3, 0),
            ({"seconds_per_source_byte": 1.0}, 5 * 10 * 4, 5 * 10 * 4),
        ):
            prices = formulas(**change)
            assert (prices.layer(odd), prices.layer(odd_point)) == (window, point)
            assert prices.layer(even) == (10 * 9 * 16 * 8 if "seconds_per_mac" in change else 0)

    @pytest.mark.parametrize(
        ("inputs", "layouts", "read"), [(16, 2, 16 * 10 * 4 * 4), (16, 1, 0), (7, 2, 0), (9, 2, 0)]
    )
    def test_a_plain_tensor_is_reordered_for_blocks(
        self, inputs: int, layouts: int, read: int
    ) -> None:
        prices = formulas(seconds_per_source_byte=1.0, layouts=layouts)
        plain, blocked = (
            prices.layer(LayerWork(False, inputs, 8, 10, 9, 4, 4, plain)) for plain in (True, False)
        )
        assert plain - blocked == read

    @pytest.mark.parametrize(
        ("inputs", "outputs", "passed"), [(16, 12, 12), (7, 12, 12), (16, 5, 0), (9, 8, 0)]
    )
    def test_bounds_take_a_pass_behind_blocks(self, inputs: int, outputs: int, passed: int) -> None:
        prices = formulas(seconds_per_source_byte=2.0)
        bounded, free = (
            prices.layer(LayerWork(False, inputs, outputs, 10, 9, 4, bounded=each))
            for each in (True, False)
        )
        assert bounded - free == passed * 10 * 4

    def test_a_product_has_no_blocks_and_reads_its_weight_once(self) -> None:
        work = LayerWork(True, 7, 5, 10, 1, 4)
        assert formulas(seconds_per_product_mac=2.0).layer(work) == 2 * 7 * 5 * 10
        assert formulas(seconds_per_product_weight_byte=2.0).layer(work) == 2 * 7 * 5 * 4
        assert formulas(seconds_per_mac=1.0, seconds_per_node=1.0).layer(work) == 0


class TestCopies:
    """32 channels are read and 6 written, each at 10 places of 4 bytes."""

    @pytest.mark.parametrize("contiguous", [False, True])
    def test_channels_in_front_change_their_layout(self, contiguous: bool) -> None:
        work = CopyWork(32, 6, 10, contiguous, False, 4)
        assert formulas(seconds_per_source_byte=2.0).copy(work) == 2 * 32 * 10 * 4
        assert formulas(seconds_per_copied_byte=2.0).copy(work) == 2 * 6 * 10 * 4
        assert formulas(seconds_per_node=2.0).copy(work) == 2
        assert formulas(seconds_per_gathered=1.0, seconds_per_row=1.0).copy(work) == 0

    @pytest.mark.parametrize(("reordered", "bytes_read"), [(0, 0), (5, 5 * 10 * 4)])
    def test_what_is_reordered_for_others_as_well(self, reordered: int, bytes_read: int) -> None:
        work = CopyWork(32, 6, 10, True, False, 4, reordered)
        assert formulas(seconds_per_source_byte=2.0).copy(work) == 2 * bytes_read
        assert formulas(seconds_per_copied_byte=2.0).copy(work) == 2 * 6 * 10 * 4

    @pytest.mark.parametrize(("near", "seconds"), [(240, 960), (239, 3 * 960)])
    def test_what_fits_no_cache_takes_longer(self, near: int, seconds: int) -> None:
        prices = formulas(seconds_per_copied_byte=4.0, near_bytes=near, far=3.0)
        assert prices.copy(CopyWork(32, 6, 10, True, False, 4)) == seconds

    @pytest.mark.parametrize(
        ("name", "gathered", "sliced"),
        [
            ("seconds_per_gathered", 10 * 6, 0),
            ("seconds_per_copied_byte", 0, 10 * 6 * 4),
            ("seconds_per_row", 0, 10),
            ("seconds_per_node", 1, 1),
            ("seconds_per_source_byte", 0, 0),
        ],
    )
    def test_channels_at_the_end(self, name: str, gathered: int, sliced: int) -> None:
        prices = formulas(**{name: 1.0})
        assert prices.copy(CopyWork(32, 6, 10, False, True, 4)) == gathered
        assert prices.copy(CopyWork(32, 6, 10, True, True, 4)) == sliced


class TestCounts:
    @pytest.mark.parametrize(
        ("least", "aligned", "whole"),
        [(1, 4, 8), (4, 4, 8), (5, 8, 8), (8, 8, 8), (9, 12, 16), (16, 16, 16), (17, 20, 24)],
    )
    def test_the_next_that_kernels_take(self, least: int, aligned: int, whole: int) -> None:
        assert formulas().counts(least, Grain.BLOCK) == Counts(least, aligned, whole)

    @pytest.mark.parametrize(("least", "some", "whole"), [(1, 8, 16), (17, 24, 32), (48, 48, 48)])
    def test_quantized_layers_like_vectors_of_bytes(
        self, least: int, some: int, whole: int
    ) -> None:
        assert formulas().counts(least, Grain.BYTES) == Counts(least, some, whole)
        decoded = dataclasses.replace(formulas(), name="cuda")
        assert decoded.counts(9, Grain.BYTES) == decoded.counts(9, Grain.BLOCK)

    def test_products_like_any(self) -> None:
        assert formulas().counts(9, Grain.CHANNEL) == Counts(9, 9, 9)


class TestKernels:
    """Each family, by hand: 3 channels in, 8 made, at 10 places, with a window of 9."""

    @pytest.mark.parametrize(
        ("family", "name", "seconds"),
        [
            ("overhead", "seconds_per_node", 1),
            ("overhead", "seconds_per_copied_byte", 0),
            ("gather", "seconds_per_copied_byte", 4 * 10 * 8),
            ("slice", "seconds_per_copied_byte", 4 * 10 * 8),
            ("concat", "seconds_per_copied_byte", 4 * 10 * 8),
            ("concat", "seconds_per_source_byte", 0),
            ("gather_last", "seconds_per_gathered", 10 * 8),
            ("gather_last", "seconds_per_copied_byte", 0),
            ("slice_last", "seconds_per_row", 10),
            ("slice_last", "seconds_per_copied_byte", 4 * 10 * 8),
            ("simple", "seconds_per_source_byte", 4 * 10 * 8 * 9),
            ("reorder_in", "seconds_per_source_byte", 4 * 10 * 8 * 9),
            ("costly", "seconds_per_source_byte", 4 * 10 * 8 * 9 * 2),
            ("pool", "seconds_per_source_byte", 4 * 10 * 8 * 9 / 2),
            ("direct", "seconds_per_mac", 3 * 8 * 10 * 9),
            ("product", "seconds_per_product_mac", 3 * 8 * 10),
        ],
    )
    def test_one_term(self, family: str, name: str, seconds: float) -> None:
        assert formulas(**{name: 1.0}).kernel(Kernel(family, 3, 8, 10, window=9)) == seconds

    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_is_a_node(self, family: str) -> None:
        kernel = Kernel(family, 8, 8, 10, window=9)
        assert formulas(seconds_per_node=1.0).kernel(kernel) == 1

    @pytest.mark.parametrize(
        ("family", "slower"),
        [
            ("depthwise", 3),
            ("depthwise_plain", 12),
            ("grouped_plain", 1.5),
            ("bytes_depthwise", 10 * 0.5),
            ("ragged_depthwise", 13 * 0.5 * 1.5),
            ("bytes_grouped", 2 * 0.5),
        ],
    )
    def test_groups_share_the_inputs(self, family: str, slower: float) -> None:
        kernel = Kernel(family, 12, 8, 10, window=9, groups=4)
        prices = formulas(seconds_per_mac=1.0, ragged=1.5)
        assert prices.kernel(kernel) == 12 / 4 * 8 * 10 * 9 * slower


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "family", "counted"),
    [
        (7, 9, 1, "few", (7, 16)),
        (8, 8, 1, "direct", (8, 8)),
        (12, 9, 1, "direct", (16, 16)),
        (9, 8, 1, "unrolled", (9, 8)),
        (8, 8, 8, "depthwise", (8, 8)),
        (12, 12, 12, "depthwise", (16, 16)),
        (10, 10, 10, "depthwise_plain", (10, 10)),
        (8, 16, 8, "grouped_plain", (8, 16)),
        (16, 32, 2, "grouped", (16, 32)),
        (16, 24, 2, "grouped_plain", (16, 24)),
        (24, 16, 2, "grouped_plain", (24, 16)),
    ],
)
def test_the_kernel_of_a_convolution(
    inputs: int, outputs: int, groups: int, family: str, counted: tuple[int, int]
) -> None:
    kernel = formulas().convolution(inputs, outputs, 10, 9, 4, groups)
    assert (kernel.family, kernel.inputs, kernel.outputs) == (family, *counted)
    assert (kernel.places, kernel.window, kernel.stride) == (10, 9, 4)
    assert kernel.groups == (kernel.inputs if family == "depthwise" else groups)
    if groups == 1:
        pointwise = "pointwise" if family == "direct" else f"{family}_pointwise"
        assert formulas().convolution(inputs, outputs, 10, 1, 4, 1).family == pointwise


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "family"),
    [
        (16, 8, 1, "bytes"),
        (12, 8, 1, "bytes"),
        (10, 8, 1, "ragged"),
        (16, 12, 1, "ragged"),
        (32, 32, 32, "bytes_depthwise"),
        (24, 24, 24, "ragged_depthwise"),
        (24, 24, 2, "bytes_grouped"),
        (8, 16, 8, "bytes_grouped"),
    ],
)
@pytest.mark.parametrize("window", [1, 9])
def test_the_kernel_of_a_quantized_convolution(
    inputs: int, outputs: int, groups: int, family: str, window: int
) -> None:
    point = "_pointwise" if window == groups == 1 else ""
    sizes = inputs, outputs, 10, window, 4, groups
    assert byte_convolution(*sizes) == Kernel(family + point, *sizes)
    whole = family.replace("ragged_", "bytes_").replace("ragged", "bytes")
    assert byte_convolution(*sizes, rounded=False) == Kernel(whole + point, *sizes)


def test_layers_of_bytes_are_priced_as_such_where_they_run_as_such() -> None:
    prices = formulas(seconds_per_mac=1.0, seconds_per_product_mac=3.0, byte_mac=0.5, ragged=2.0)
    layer = LayerWork(False, 16, 16, 10, 9, 1, grain=Grain.BYTES, in_bytes=True)
    macs = 16 * 16 * 10 * 9
    assert prices.layer(layer) == macs * 0.5
    assert prices.layer(layer._replace(outputs=12)) == macs * 0.5 * 2 * 12 / 16
    sums = layer._replace(outputs=12, grain=Grain.CHANNEL)
    assert prices.layer(sums) == macs * 0.5 * 12 / 16
    product = LayerWork(True, 16, 16, 10, 1, 1, grain=Grain.CHANNEL, in_bytes=True)
    assert prices.layer(product) == 16 * 16 * 10 * 0.5
    decoded = dataclasses.replace(prices, name="cuda")
    assert decoded.layer(layer) == macs
    assert decoded.layer(product) == 16 * 16 * 10 * 3


def test_copies_of_bytes() -> None:
    """Rows of them are sliced; for a Gather all are turned, and what it makes is turned back."""
    gather, cut = (CopyWork(32, 6, 10, each, False, 1) for each in (False, True))
    assert formulas(seconds_per_row=1.0).copy(cut) == 10
    assert formulas(seconds_per_row=1.0).copy(gather) == 0
    assert formulas(seconds_per_source_byte=1.0).copy(gather) == 32 * 10 * 4
    assert formulas(seconds_per_copied_byte=1.0).copy(gather) == 6 * 10
    halves = gather._replace(item_bytes=2)
    assert formulas(seconds_per_source_byte=1.0).copy(halves) == 32 * 10 * 2
    decoded = dataclasses.replace(
        formulas(seconds_per_row=1.0, seconds_per_source_byte=100.0), name="cuda"
    )
    assert decoded.copy(cut) == decoded.copy(gather) == 32 * 10 * 100


def test_a_convolution_of_single_positions_and_channels_scales() -> None:
    assert formulas().convolution(12, 12, 10, 1, 1, 12) == Kernel("scale", 16, 16, 10)
    assert formulas().convolution(12, 12, 10, 1, 4, 12).family == "depthwise"
    assert formulas().convolution(10, 10, 10, 1, 1, 10).family == "depthwise_plain"


def test_the_numbers_of_a_kernel() -> None:
    """One, multiply-adds, elements read, made, weights, outputs, elements unrolled."""
    plain, grouped = Kernel("direct", 3, 8, 10, 9, 4), Kernel("grouped", 6, 8, 10, 9, 1, 2)
    assert features([plain, grouped]).tolist() == [
        [1, 3 * 8 * 10 * 9, 3 * 10 * 4, 8 * 10, 3 * 8 * 9, 8, 3 * 10 * 9],
        [1, 6 * 8 // 2 * 10 * 9, 6 * 10, 8 * 10, 6 * 8 // 2 * 9, 8, 6 * 10 * 9],
    ]
    assert features([]).shape == (0, 7)

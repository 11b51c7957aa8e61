"""What tables of measured kernels add up to, each term reckoned by hand."""

from __future__ import annotations

from typing import ClassVar

import pytest

from formulas import formulas
from onnx_upscale.grain import Grain
from onnx_upscale.prices import CopyWork, Kernel, LayerWork, TablePrices
from onnx_upscale.prices.table import Measured


class TestTables:
    """What a table adds up: here every kernel takes a fixed time, by its family."""

    SECONDS: ClassVar = {
        **{
            "direct": 1.0,
            "unrolled": 2.0,
            "product": 5.0,
            "reorder_in": 10.0,
            "reorder_out": 100.0,
            "fused": 50.0,
        },
        **{"gather": 1e3, "slice": 2e3, "gather_last": 3e3, "slice_last": 4e3},
    }

    def table(self, layouts: int = 2) -> TablePrices:
        near = Kernel("", 16, 16, 10)
        measured = {
            family: Measured((each, 0, 0, 0, 0, 0, 0), (near,), (each,))
            for family, each in self.SECONDS.items()
        }
        return TablePrices("mine", formulas(layouts=layouts), measured)

    @pytest.mark.parametrize(
        ("product", "inputs", "layouts", "seconds"),
        [
            (False, 16, 1, 1),
            (False, 18, 1, 2),
            (False, 16, 2, 1),
            (False, 18, 2, 2 + 100 + 10),
            (True, 18, 2, 5),
        ],
    )
    def test_layers_outside_the_blocks_are_reordered_before_and_after(
        self, product: bool, inputs: int, layouts: int, seconds: float
    ) -> None:
        work = LayerWork(product, inputs, 16, 10, 1 if product else 9, 4)
        assert self.table(layouts).layer(work) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        ("inputs", "seconds"), [(16, 1 + 10), (18, 2 + 10)], ids=["blocked", "plain"]
    )
    def test_layers_that_read_a_plain_tensor(self, inputs: int, seconds: float) -> None:
        work = LayerWork(False, inputs, 16, 10, 9, 4, plain=True)
        assert self.table().layer(work) == pytest.approx(seconds)

    @pytest.mark.parametrize(("inputs", "seconds"), [(16, 1 + 50), (18, 2 + 100 + 10)])
    def test_bounds_take_a_pass_behind_blocks(self, inputs: int, seconds: float) -> None:
        work = LayerWork(False, inputs, 16, 10, 9, 4, bounded=True)
        assert self.table().layer(work) == pytest.approx(seconds)

    def test_layers_of_bytes(self) -> None:
        near = Kernel("", 16, 16, 10)
        measured = {"bytes": Measured((7.0, 0, 0, 0, 0, 0, 0), (near,), (7.0,))}
        layer = LayerWork(False, 16, 16, 10, 9, 1, grain=Grain.BYTES, in_bytes=True)
        assert TablePrices("mine", formulas(), measured).layer(layer) == pytest.approx(7.0)
        free = TablePrices("mine", formulas(name="cuda"), measured).layer(layer)
        assert free == 0

    @pytest.mark.parametrize(("contiguous", "seconds"), [(True, 4000), (False, 1000 + 100 + 10)])
    def test_copies_of_bytes(self, contiguous: bool, seconds: float) -> None:
        work = CopyWork(16, 8, 10, contiguous, False, 1)
        assert self.table().copy(work) == pytest.approx(seconds)

    def test_copies_of_a_plain_tensor(self) -> None:
        work = CopyWork(16, 8, 10, False, False, 4, reordered=0)
        assert self.table().copy(work) == pytest.approx(1000 + 10)

    @pytest.mark.parametrize(
        ("contiguous", "last", "layouts", "seconds"),
        [
            (False, False, 2, 1000 + 100 + 10),
            (True, False, 2, 2000 + 100 + 10),
            (False, False, 1, 1000),
            (False, True, 2, 3000),
            (True, True, 2, 4000),
        ],
    )
    def test_copies_need_the_plain_layout_unless_channels_come_last(
        self, contiguous: bool, last: bool, layouts: int, seconds: float
    ) -> None:
        work = CopyWork(16, 8, 10, contiguous, last, 4)
        assert self.table(layouts).copy(work) == pytest.approx(seconds)
        dear = self.table(layouts).with_copies_costing(3.0)
        assert dear.copy(work) == pytest.approx(3 * seconds)

    def test_reorders_are_of_what_is_read_and_of_what_is_made(self) -> None:
        """Here each element takes a second: 18 x 10 x 4 are read, 16 x 10 made."""
        per_element = (0, 0, 0, 1.0, 0, 0, 0)
        near = Kernel("", 16, 16, 20)
        measured = Measured(per_element, (near,), (16 * 20,))
        for family, elements in (("reorder_out", 18 * 10 * 4), ("reorder_in", 16 * 10)):
            prices = TablePrices("mine", formulas(), {family: measured})
            assert prices.layer(LayerWork(False, 18, 16, 10, 9, 4, stride=4)) == elements
        for family, elements in (("reorder_out", 18 * 10), ("reorder_in", 7 * 10)):
            prices = TablePrices("mine", formulas(), {family: measured})
            assert prices.copy(CopyWork(18, 7, 10, False, False, 4)) == elements

    def test_what_lies_far_away_is_left_to_the_formulas(self) -> None:
        """On a machine that takes five times as long as the formulas say."""
        here = Kernel("product", 16, 16, 16)
        measured = Measured((5.0, 0, 0, 0, 0, 0, 0), (here,), (5.0,))
        per_mac = formulas(seconds_per_product_mac=16**-3, seconds_per_mac=1.0)
        prices = TablePrices("mine", per_mac, {"product": measured})
        near, far = Kernel("product", 16, 16, 256), Kernel("product", 16, 16, 257)
        assert (prices.knows(near), prices.knows(far)) == (True, False)
        assert prices.kernel(near) == 5.0
        assert prices.kernel(far) == pytest.approx(5 * 257 / 16)
        unknown = Kernel("direct", 16, 16, 16)
        assert not prices.knows(unknown)
        assert prices.kernel(unknown) == per_mac.kernel(unknown) == 16**3

    def test_the_nearest_say_how_much_longer_things_take(self) -> None:
        """A machine twice as slow with few rows, and four times as slow with many."""
        kernels = Kernel("product", 16, 16, 1), Kernel("product", 16, 16, 4096)
        formula = formulas(seconds_per_product_mac=1.0)
        seconds = 2 * formula.kernel(kernels[0]), 4 * formula.kernel(kernels[1])
        measured = Measured((1.0, 0, 0, 0, 0, 0, 0), kernels, seconds)
        prices = TablePrices("mine", formula, {"product": measured})
        many, few = Kernel("product", 512, 16, 1 << 14), Kernel("product", 512, 16, 1)
        assert not prices.knows(many) and not prices.knows(few)
        assert prices.kernel(many) / formula.kernel(many) == pytest.approx(4, rel=0.05)
        assert prices.kernel(few) / formula.kernel(few) == pytest.approx(2, rel=0.05)

    @pytest.mark.parametrize(("doublings", "share"), [(0, 0.0225), (1, 1.3225), (2, 17.2225)])
    def test_a_correction_fades_with_the_distance(self, doublings: int, share: float) -> None:
        """What was measured took twice what was fitted; 1 / share is its weight, against 0.3."""
        measured = Measured((5.0, 0, 0, 0, 0, 0, 0), (Kernel("", 16, 16, 16),), (10.0,))
        found = measured.seconds_of(Kernel("product", 16, 16, 16 << doublings))
        assert found == pytest.approx(5 * 2 ** (1 / share / (1 / share + 0.3)))

"""Which of torch's exporters tests use, where that is not what they are about."""

from __future__ import annotations

import pytest


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses the older exporter, which is faster, in place of the newer one."""
    pytest.importorskip("torch")
    from onnx_upscale.exporter.torch_exporters import EXPORTERS

    monkeypatch.setitem(EXPORTERS, "dynamo", EXPORTERS["torchscript"])

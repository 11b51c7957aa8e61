"""Large weights of a model of one file: left where they lie, and written without being read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from case import Case
from command import run
from onnx_upscale import in_place, one_file
from onnx_upscale.errors import ModelError
from onnx_upscale.in_place import read_in_place
from onnx_upscale.mapped import embedded, is_mapped, place_of
from onnx_upscale.one_file import OneFile
from onnx_upscale.optimizer.load.model import InPlace, read_files
from strategies import cases


@pytest.fixture(autouse=True, scope="module")
def small_weights_are_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_place, "LEAST", 16)
        patch.setattr(one_file, "_APART", 16)
        yield


def plain(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def with_everything() -> onnx.ModelProto:
    """A model with fields before and behind those that hold weights, and weights of all kinds."""
    net = Net(18, x=(2, 8))
    made = net("MatMul", "x", net.random(8, 300), name="a")
    model = net.model(net("MatMul", net("Relu", made), net.random(300, 5), name="b"))
    graph = model.graph
    graph.initializer[0].doc_string = "behind the content"
    graph.initializer.append(helper.make_tensor("listed", TensorProto.FLOAT, [40], range(40)))
    graph.initializer.append(numpy_helper.from_array(np.arange(40), "numbers"))
    graph.initializer.append(numpy_helper.from_array(np.array(["a" * 40, "b"], object), "texts"))
    graph.initializer.append(numpy_helper.from_array(np.array(3.0, np.float32), "one"))
    graph.doc_string, model.doc_string = "of the graph", "of the model"
    model.metadata_props.add(key="key", value="value")
    return model


@given(cases())
def test_what_is_written_is_what_protobuf_would_write(case: Case) -> None:
    model = case.model
    content = OneFile(model)
    assert b"".join(content) == plain(model)
    assert len(content) == model.ByteSize()


def test_all_fields_stand_where_they_belong(tmp_path: Path) -> None:
    model, path = with_everything(), tmp_path / "model.onnx"
    path.write_bytes(plain(model))
    found = read_in_place(path)
    assert found is not None
    assert len(found[1]) == 3  # What is listed, or text, or small, is read.
    stored = read_files(InPlace(str(path)), mapped=True)
    assert is_mapped(stored.model)
    assert not stored.sources
    assert plain(embedded(stored.model)) == plain(model)
    assert b"".join(OneFile(stored.model)) == plain(model)
    assert not is_mapped(read_files(path, mapped=True).model)


@given(st.data())
def test_a_broken_file_is_what_it_is_without_that(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(plain(with_everything()))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))]
    path = tmp_path_factory.mktemp("broken") / "model.onnx"
    path.write_bytes(content)
    try:
        wanted = plain(read_files(path, mapped=True).model)
    except ModelError as error:
        with pytest.raises(ModelError) as raised:
            read_files(InPlace(str(path)), mapped=True)
        assert str(raised.value) == str(error)
        return
    assert plain(embedded(read_files(InPlace(str(path)), mapped=True).model)) == wanted


def test_a_weight_that_does_not_fit_its_shape_is_told(tmp_path: Path) -> None:
    model, path = with_everything(), tmp_path / "model.onnx"
    model.graph.initializer[0].dims[0] += 1
    path.write_bytes(plain(model))
    with pytest.raises(ModelError, match="bytes, but its shape needs"):
        read_files(InPlace(str(path)), mapped=True)


def test_what_is_no_file_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_in_place(tmp_path / "pipe") is None  # And does not wait for somebody to write.
    assert read_in_place(tmp_path) is None
    assert read_in_place(tmp_path / "missing") is None
    (tmp_path / "empty").touch()
    assert read_in_place(tmp_path / "empty") is None


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(plain(with_everything()))
    stored = read_files(InPlace(str(path)), mapped=True)
    other = with_everything()
    other.doc_string = "another"
    path.write_bytes(plain(other))
    with pytest.raises(ModelError, match="has changed since it was read; run again"):
        b"".join(OneFile(stored.model))


def test_the_command_leaves_weights_where_they_are(tmp_path: Path) -> None:
    """What nobody changes goes from file to file; what it writes is what Python writes."""
    path, masks, out = (tmp_path / name for name in ("in.onnx", "masks.json", "out.onnx"))
    path.write_bytes(plain(with_everything()))
    masks.write_text('{"version": 1, "masks": {"a": {"output": [0, 1, 2]}}}')
    result = run("optimize", str(path), str(masks), str(out))
    assert result.exit_code == 0, result.output
    assert run("verify", str(path), str(masks), str(out)).exit_code == 0
    again = onnx_upscale.optimize(path, masks)
    path.unlink()  # In Python a result outlives its file.
    assert plain(again.model) == out.read_bytes()
    assert all(place_of(tensor) is None for tensor in again.model.graph.initializer)

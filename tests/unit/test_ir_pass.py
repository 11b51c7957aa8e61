"""The main job as a pass of onnx_ir."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import external
import onnx_upscale
from build import Array, Net, assert_close, input_values, run
from onnx_upscale import MaskError, UpscaleError, UsageError, VerifyError
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.masks import as_document
from pruning import square

ir = pytest.importorskip("onnx_ir")
common = pytest.importorskip("onnx_ir.passes.common")

from onnx_upscale.ir import (  # noqa: E402
    PostconditionError,
    PreconditionError,
    UpscalePass,
    UpscaleResult,
)

Masks = dict[str, Any]


def document(**layers: Any) -> Masks:
    return {
        "version": 1,
        "masks": {name.replace("_", "."): sides for name, sides in layers.items()},
    }


MASKS = document(inner_weight={"input": [0, 3, 5]}, head_weight={"input": {"keep": [1, 2, 4, 6]}})


def network(width: int = 8, side: int = 6) -> onnx.ModelProto:
    """A residual network."""
    net = Net(17, x=["batch", 3, side, side])
    stem = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    inner = net("Relu", square(net.random(width, width), net, stem, "inner"))
    other = square(net.random(width, width), net, stem, "other")
    joined = net("Add", inner, other, name="join")
    return net.model(square(net.random(4, width), net, joined, "head"))


def masked(model: onnx.ModelProto, masks: Masks | None) -> onnx.ModelProto:
    return masked_model(load(model, masks).graph)


def proto_of(model: Any) -> onnx.ModelProto:
    made: onnx.ModelProto = ir.to_proto(model)
    return made


def optimized(model: onnx.ModelProto, masks: Masks, **options: Any) -> onnx_upscale.Result:
    """What the main job makes of a model as onnx_ir writes it, with types of all weights."""
    return onnx_upscale.optimize(proto_of(ir.from_proto(model)), masks, **options)


def assert_masked(found: Any, model: onnx.ModelProto, masks: Masks | None) -> None:
    inputs = input_values(model)
    assert_close(run(masked(model, masks), inputs), run(proto_of(found), inputs))


def sizes(model: Any) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.const_value.shape) for name, value in model.graph.initializers.items()
    }


def test_it_is_the_main_job() -> None:
    proto = network()
    result = UpscalePass(MASKS, strategy="gather")(ir.from_proto(proto))
    assert isinstance(result, UpscaleResult)
    assert result.modified
    assert_masked(result.model, proto, MASKS)
    expected = optimized(proto, MASKS, strategy="gather")
    assert result.report is not None
    assert result.report.segments == expected.report.segments
    assert result.report.verify.ok
    assert proto_of(ir.from_proto(expected.model)) == proto_of(result.model)
    assert sizes(result.model)["inner.weight"] == (4, 5, 1, 1)


def test_what_is_said_of_parts_stays() -> None:
    proto = network()
    described: list[Any] = [proto, proto.graph, *proto.graph.node, *proto.graph.initializer]
    for part in described:
        part.doc_string = "what it is for"
        part.metadata_props.add(key="who", value="we")
    proto.producer_name, proto.domain, proto.model_version = "tests", "example", 7
    model = UpscalePass(MASKS)(ir.from_proto(proto)).model
    assert (model.producer_name, model.domain, model.model_version) == ("tests", "example", 7)
    names = {"stem", "inner", "other", "join", "head"}
    nodes = [node for node in model.graph if node.name in names]
    assert {node.name for node in nodes} == names
    weights = [model.graph.initializers[f"{name}.weight"].const_value for name in ("stem", "head")]
    kept: list[Any] = [model, model.graph, *nodes, *weights]
    for part in kept:
        assert part.doc_string == "what it is for"
        assert part.metadata_props == {"who": "we"}


def test_what_passes_know_of_a_model_stays() -> None:
    given = ir.from_proto(network())
    given.meta["a"], given.graph.meta["b"], given.graph[0].meta["c"] = 1, 2, 3
    model = UpscalePass(MASKS)(given).model
    assert (model.meta["a"], model.graph.meta["b"], model.graph[0].meta["c"]) == (1, 2, 3)
    assert model.graph[0].name == given.graph[0].name


def test_the_given_model_stays_and_shares_its_tensors() -> None:
    given = ir.from_proto(network())
    before = proto_of(given)
    masks = document(head_weight={"input": [0, 1]})
    model = UpscalePass(masks)(given).model
    assert proto_of(given) == before
    shared = {
        name: value.const_value is given.graph.initializers[name].const_value
        for name, value in model.graph.initializers.items()
    }
    assert shared["inner.weight"] is (sizes(model)["inner.weight"] == sizes(given)["inner.weight"])
    untouched = UpscalePass(document(head_weight={"input": []}))(given).model
    for name, value in untouched.graph.initializers.items():
        assert value.const_value is given.graph.initializers[name].const_value


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_masks_from_a_file_are_read_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"masks{suffix}"
    if suffix == ".npz":
        flags = {f"{key}.input": np.ones(8, bool) for key in ("inner.weight", "head.weight")}
        flags["inner.weight.input"][[0, 3, 5]] = False
        flags["head.weight.input"][[0, 3, 5, 7]] = False
        np.savez(path, **flags)  # type: ignore[arg-type]  # Its own types miss keywords.
    else:
        path.write_text(onnx_upscale.Masks(MASKS).__repr__().replace("'", '"'))
    given = UpscalePass(path)
    path.unlink()
    assert_masked(given(ir.from_proto(network())).model, network(), MASKS)
    assert as_document(given.masks) == given.masks


def test_nothing_to_do() -> None:
    given = ir.from_proto(network())
    result = UpscalePass()(given)
    assert not result.modified
    assert result.model is not given
    assert proto_of(result.model) == proto_of(given)


def test_zeros_in_the_weights_are_masks_enough() -> None:
    zeroed = masked(network(), MASKS)
    result = UpscalePass()(ir.from_proto(zeroed))
    assert result.modified
    assert_masked(result.model, zeroed, None)
    assert not UpscalePass()(result).modified


def test_a_pass_manager_applies_masks_once() -> None:
    proto = network()
    passes = ir.passes.PassManager(
        [
            UpscalePass(MASKS),
            common.RemoveUnusedNodesPass(),
            ir.passes.functionalize(common.IdentityEliminationPass()),
        ],
        steps=3,
        early_stop=False,
    )
    result = passes(ir.from_proto(proto))
    assert result.modified
    assert_masked(result.model, proto, MASKS)
    again = UpscalePass(MASKS)(result)
    assert (again.modified, again.report) == (False, None)
    assert proto_of(again.model) == proto_of(result.model)
    assert again.model is not result.model
    # Other masks are those of the model that they are given.
    more = document(head_weight={"input": [0, 1]})
    further = UpscalePass(more)(result)
    assert further.modified
    assert_masked(further.model, proto_of(result.model), more)


def body(name: str, seed: int) -> onnx.GraphProto:
    """A branch with a layer that reads a tensor from outside."""
    net = Net(18, seed)
    product = net("MatMul", "hidden", net.random(6, 2), name=f"{name}.product")
    outputs = [helper.make_tensor_value_info(product, onnx.TensorProto.FLOAT, ["n", 2])]
    return helper.make_graph(net.nodes, name, [], outputs, net.initializers)


def with_bodies() -> onnx.ModelProto:
    """Layers in the branches of an If, behind one that reads what a function makes."""
    net = Net(18, x=["n", 6])
    net.nodes.append(helper.make_node("Twice", ["x"], ["twice"], "twice", domain="own"))
    weight = net.constant(net.random(6, 6), "w")
    net.nodes.append(helper.make_node("MatMul", ["twice", weight], ["hidden"], "hidden"))
    positive = net("Greater", net("ReduceSum", "x", keepdims=0), np.float32(0))
    branches = {f"{name}_branch": body(name, seed) for seed, name in enumerate(("then", "else"))}
    net("If", positive, name="choice", **branches)
    model = net.model()
    output = helper.make_tensor_value_info("choice.0", onnx.TensorProto.FLOAT, ["n", 2])
    model.graph.output.append(output)
    add = helper.make_node("Add", ["a", "a"], ["b"])
    imports = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [add], imports))
    return model


def test_functions_and_bodies(tmp_path: Path) -> None:
    proto = with_bodies()
    masks = document(w={"output": [1, 4]})
    inputs = input_values(proto)
    found = UpscalePass(masks)(ir.from_proto(proto)).model
    assert_close(run(masked(proto, masks), inputs), run(proto_of(found), inputs))
    # So where the weights of bodies are in files.
    external.save(proto, str(tmp_path / "m.onnx"))
    stored = ir.load(tmp_path / "m.onnx")
    assert isinstance(stored.graph.initializers["w"].const_value, ir.ExternalTensor)
    also = ir.external_data.load_to_model(UpscalePass(masks)(stored).model)
    assert_close(run(proto_of(found), inputs), run(proto_of(also), inputs))


class TestExternalWeights:
    """Large weights stay in their files."""

    @pytest.fixture
    def given(self, tmp_path: Path) -> Any:
        net = Net(17, x=["n", 600])
        weights = {"a": (600, 600), "b": (600, 600), "c": (600, 8), "d": (8, 600), "e": (600, 4)}
        tensor = "x"
        for name, shape in weights.items():
            weight = net.constant(net.random(*shape), f"{name}.weight")
            tensor = net("MatMul", net("Tanh", tensor), weight, name=name)
        proto = net.model(tensor)
        onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
        return ir.load(tmp_path / "m.onnx")

    def test_what_did_not_change_is_not_read(self, given: Any, tmp_path: Path) -> None:
        masks = document(c_weight={"input": [5]})
        model = UpscalePass(masks, verify=False)(given).model
        tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
        for name in ("a.weight", "d.weight", "e.weight"):
            assert tensors[name] is given.graph.initializers[name].const_value
        assert sizes(model)["b.weight"] == (600, 599)
        (tmp_path / "other").mkdir()
        ir.save(model, tmp_path / "other" / "new.onnx", external_data="new.data")
        original = onnx.load(tmp_path / "m.onnx")
        found = onnx.load(tmp_path / "other" / "new.onnx")
        inputs = input_values(original)
        assert_close(run(masked(original, masks), inputs), run(found, inputs))

    def test_a_weight_of_two_layers_of_which_one_is_cut(self, tmp_path: Path) -> None:
        """The other keeps it, in its file."""
        net = Net(17, x=["n", 600], y=["n", 600])
        weight = net.constant(net.random(600, 600), "w")
        one = net("MatMul", net("Tanh", "x"), weight, name="one")
        cut = net("MatMul", net("Relu", one), net.constant(net.random(600, 3), "v"), name="cut")
        two = net("MatMul", net("Tanh", "y"), weight, name="two")
        proto = net.model(cut, two)
        onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
        masks = document(v={"input": list(range(100))})
        model = UpscalePass(masks)(ir.load(tmp_path / "m.onnx")).model
        outside = [
            value.const_value
            for value in model.graph.initializers.values()
            if isinstance(value.const_value, ir.ExternalTensor)
        ]
        assert [tensor.location for tensor in outside] == ["m.data"]
        assert_masked_loaded(model, onnx.load(tmp_path / "m.onnx"), masks)

    def test_one_pass_after_the_other(self, given: Any, tmp_path: Path) -> None:
        first, second = document(c_weight={"input": [5]}), document(e_weight={"input": [7, 8]})
        model = ir.passes.Sequential(UpscalePass(first), UpscalePass(second))(given).model
        original = onnx.load(tmp_path / "m.onnx")
        both = document(**{"c_weight": {"input": [5]}, "e_weight": {"input": [7, 8]}})
        assert_masked_loaded(model, original, both)

    def test_files_that_are_gone(self, given: Any, tmp_path: Path) -> None:
        (tmp_path / "m.data").unlink()
        assert "its external weights cannot be read" in refused(given, MASKS)

    def test_weights_of_several_folders(self, given: Any, tmp_path: Path) -> None:
        given.graph.initializers["a.weight"].const_value.base_dir = str(tmp_path / "other")
        assert "files of several folders" in refused(given, MASKS)


def assert_masked_loaded(found: Any, model: onnx.ModelProto, masks: Masks) -> None:
    loaded = ir.external_data.load_to_model(found)
    assert_masked(loaded, model, masks)


def refused(model: Any, masks: Masks, error: type[Exception] = PreconditionError) -> str:
    with pytest.raises(error) as caught:
        UpscalePass(masks)(model)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UpscaleError)
    assert isinstance(caught.value, ir.passes.InvariantError)
    return str(caught.value)


def unnamed() -> Any:
    model = ir.from_proto(network())
    model.graph[0].outputs[0].name = None
    return model


def unloaded() -> Any:
    model = ir.from_proto(network())
    model.graph.initializers["head.weight"].const_value = None
    return model


@pytest.mark.parametrize(
    ("make", "masks", "saying"),
    [
        (network, MASKS, "expected an onnx_ir.Model, found ModelProto"),
        (unloaded, MASKS, "weight 'head.weight' has no value"),
        (lambda: ir.from_proto(network()), document(inner_wight={"input": [0]}), "'inner.wight'"),
        (lambda: ir.from_proto(network()), document(inner_weight={"input": [8]}), "out of range"),
    ],
)
def test_what_does_not_fit_is_a_precondition(
    make: Callable[[], Any], masks: Masks, saying: str
) -> None:
    assert saying in refused(make(), masks)


def test_in_a_row_of_passes_the_cause_says_what_is_wrong() -> None:
    passes = ir.passes.Sequential(UpscalePass(document(inner_weight={"input": [8]})))
    with pytest.raises(ir.passes.PassError) as caught:
        passes(ir.from_proto(network()))
    assert isinstance(caught.value.__cause__, PreconditionError)
    assert isinstance(caught.value.__cause__.__cause__, MaskError)


def test_models_that_differ_are_a_postcondition(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise VerifyError("verification failed: they differ")

    monkeypatch.setattr("onnx_upscale.ir.optimize_with", fails)
    message = refused(ir.from_proto(network()), MASKS, PostconditionError)
    assert message == "verification failed: they differ"


def test_masks_and_options_are_looked_at_first(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="no such mask file"):
        UpscalePass(tmp_path / "none.json")
    with pytest.raises(UsageError, match="unknown strategy 'best'"):
        UpscalePass(MASKS, strategy="best")
    with pytest.raises(TypeError, match="stratgy"):
        UpscalePass(MASKS, stratgy="auto")


def test_options_are_those_of_the_main_job() -> None:
    images: Array = np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)
    options: dict[str, Any] = {"strategy": "gather", "target": "cpu-avx2", "recover": images}
    result = UpscalePass(MASKS, **options)(ir.from_proto(network()))
    expected = optimized(network(), MASKS, **options)
    assert proto_of(ir.from_proto(expected.model)) == proto_of(result.model)
    assert result.report is not None
    assert (result.report.strategy, result.report.target) == ("gather", "cpu-avx2")
    assert result.report.recovered is not None


def test_without_onnx_ir() -> None:
    code = "import sys; sys.modules['onnx_ir'] = None; import onnx_upscale.ir"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "onnx_upscale.errors.UsageError: onnx_upscale.ir needs onnx-ir, which is not installed: "
        "pip install 'onnx-upscale[ir]'"
    )

"""How models lie on disk: in one file, or with their weights beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from command import refused, run
from onnx_upscale import atomic, main_job, mapped, storage
from onnx_upscale.files import write_files
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load.model import read_files, read_model
from onnx_upscale.running import Session, parts

SAMPLE = Path(__file__).parents[2] / "models" / "digits.onnx"


def wide() -> onnx.ModelProto:
    """Two layers of 64 channels, the second of which ignores half of them."""
    net = Net(17, x=["n", 8])
    first = net("Gemm", "x", net.random(8, 64), net.constant(net.random(64), "b"), name="first")
    weight = net.random(64, 32)
    weight[::2] = 0
    net("MatMul", net("Relu", first), net.constant(weight, "second.weight"), name="second")
    return net.model("second.0")


def save(model: onnx.ModelProto, path: str = "big.onnx", location: str = "w") -> None:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)


def data_of(path: str) -> list[Path]:
    ours = rf"{re.escape(Path(path).name)}\.[0-9a-f]{{16}}\.data"
    return sorted(each for each in Path(path).parent.iterdir() if re.fullmatch(ours, each.name))


def places(path: str) -> dict[str, str]:
    """Where the weights lie that are not in the file."""
    slim = onnx.load(path, load_external_data=False)
    return {
        tensor.name: next(e.value for e in tensor.external_data if e.key == "location")
        for tensor in slim.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def values(path: str) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def result_of(path: str) -> Any:
    x = np.random.default_rng(0).standard_normal((3, 8), np.float32)
    return Session(path).run({"x": x})["second.0"]


@pytest.fixture(params=["read", "mapped"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Weights are read, or stay in their files while models run part by part."""
    if request.param == "mapped":
        monkeypatch.setattr(mapped, "_LEAST", 128)
        monkeypatch.setattr(parts, "MOST", 2000)
    return str(request.param)


@pytest.mark.usefixtures("here", "either_way")
class TestLayout:
    def test_external_in_external_out(self) -> None:
        onnx.save(wide(), "small.onnx")
        save(wide())
        assert run("small.onnx", "-", "one.onnx").exit_code == 0
        assert data_of("one.onnx") == []
        done = run("big.onnx", "-", "two.onnx", "--report", "r.json")
        assert done.exit_code == 0, done.output
        (data,) = data_of("two.onnx")
        assert places("two.onnx") == {"second.weight": data.name}
        one, two = values("one.onnx"), values("two.onnx")
        assert one["second.weight"].shape == (32, 32)
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])
        np.testing.assert_array_equal(result_of("one.onnx"), result_of("two.onnx"))
        onnx.checker.check_model("two.onnx", full_check=True)
        output = json.loads(Path("r.json").read_text())["output"]
        content = Path("two.onnx").read_bytes()
        assert output["sha256"] == hashlib.sha256(content).hexdigest()
        assert output["bytes"] == len(content) + data.stat().st_size
        before = json.loads(Path("r.json").read_text())["input"]
        assert before["bytes"] == Path("big.onnx").stat().st_size + Path("w").stat().st_size

    def test_embedded_out(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx", "--external-data", "never").exit_code == 0
        Path("w").unlink()
        assert data_of("out.onnx") == []
        assert places("out.onnx") == {}
        assert result_of("out.onnx").shape == (3, 32)

    def test_embedded_in_external_out(self) -> None:
        onnx.save(wide(), "small.onnx")
        assert run("small.onnx", "-", "out.onnx", "--external-data=always").exit_code == 0
        (data,) = data_of("out.onnx")
        assert set(places("out.onnx").values()) == {data.name}
        assert Path("out.onnx").stat().st_size < Path("small.onnx").stat().st_size / 4
        assert run("small.onnx", "-", "one.onnx").exit_code == 0
        np.testing.assert_array_equal(result_of("out.onnx"), result_of("one.onnx"))

    def test_the_same_call_gives_the_same_bytes(self) -> None:
        save(wide())
        Path("a").mkdir()
        Path("b").mkdir()
        for folder in "ab":
            assert run("big.onnx", "-", f"{folder}/out.onnx").exit_code == 0
        (one,), (other,) = data_of("a/out.onnx"), data_of("b/out.onnx")
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())
        assert Path("a/out.onnx").read_bytes() == Path("b/out.onnx").read_bytes()

    def test_too_large_for_one_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_MOST", 4000)
        onnx.save(wide(), "small.onnx")
        assert run("small.onnx", "-", "out.onnx").exit_code == 0
        assert len(data_of("out.onnx")) == 1
        Path("out.onnx").unlink()
        data_of("out.onnx")[0].unlink()
        arguments = ["small.onnx", "-", "out.onnx", "--external-data", "never"]
        refused(*arguments, saying=["out.onnx: would be larger", "--external-data"])

    def test_weights_that_are_listed_as_inputs(self) -> None:
        model = wide()
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
        save(model)
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        listed = {value.name for value in onnx.load("out.onnx").graph.input}
        assert {"x", "b", "second.weight"} < listed
        assert len(data_of("out.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 32)

    def test_tied_weights(self) -> None:
        net = Net(17, x=["n", 32])
        weight = net.random(32, 32)
        weight[::2] = weight[:, ::2] = 0
        tied = net.constant(weight, "tied")
        net("MatMul", net("Relu", net("MatMul", "x", tied)), tied, name="last")
        save(net.model("last.0"))
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        assert len(data_of("out.onnx")) == 1
        x = np.random.default_rng(0).standard_normal((3, 32), np.float32)
        before, after = (Session(path).run({"x": x}) for path in ("big.onnx", "out.onnx"))
        np.testing.assert_allclose(after["last.0"], before["last.0"], rtol=1e-4, atol=1e-4)

    def test_tensors_of_subgraphs(self) -> None:
        net = Net(17, x=["n", 8])
        weight = numpy_helper.from_array(net.random(8, 300), "inner")

        def branch(op: str) -> onnx.GraphProto:
            nodes = [
                helper.make_node("MatMul", ["x", "inner"], [f"{op}.m"]),
                helper.make_node(op, [f"{op}.m"], [f"{op}.y"]),
            ]
            made = helper.make_tensor_value_info(f"{op}.y", TensorProto.FLOAT, None)
            return helper.make_graph(nodes, op, [], [made], [weight])

        yes = net.constant(np.array(True), "yes")
        net("If", yes, then_branch=branch("Relu"), else_branch=branch("Neg"), name="if")
        save(net.model("if.0"))
        slim = onnx.load("big.onnx", load_external_data=False)
        assert slim.graph.node[0].attribute[0].g.initializer[0].external_data
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        x = np.ones((2, 8), np.float32)
        before, after = (Session(path).run({"x": x}) for path in ("big.onnx", "out.onnx"))
        np.testing.assert_array_equal(before["if.0"], after["if.0"])

    def test_python(self) -> None:
        save(wide())
        result = onnx_upscale.optimize("big.onnx")
        assert all(t.data_location == TensorProto.DEFAULT for t in result.model.graph.initializer)
        result.save("two.onnx")
        assert len(data_of("two.onnx")) == 1
        result.save("one.onnx", external_data="never")
        assert data_of("one.onnx") == []
        assert Path("one.onnx").read_bytes() == result.content
        np.testing.assert_array_equal(result_of("one.onnx"), result_of("two.onnx"))
        with pytest.raises(onnx_upscale.UsageError, match="`external_data` 'some'"):
            result.save("one.onnx", external_data="some")


@pytest.mark.usefixtures("here")
class TestReplacing:
    """The old model with its old data, or the new one with its new."""

    def test_old_data_goes(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx", "--strategy", "gather").exit_code == 0
        (old,) = data_of("out.onnx")
        other = wide()
        save(other, "other.onnx", "w2")
        assert run("other.onnx", "-", "out.onnx.1.onnx").exit_code == 0
        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"), "third.onnx", "w3")
        assert run("third.onnx", "-", "out.onnx").exit_code == 0
        (new,) = data_of("out.onnx")
        assert new != old
        assert len(data_of("out.onnx.1.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 64)
        assert run("third.onnx", "-", "out.onnx").exit_code == 0  # The same name once more.
        assert data_of("out.onnx") == [new]
        assert run("third.onnx", "-", "out.onnx", "--external-data", "never").exit_code == 0
        assert data_of("out.onnx") == []

    def test_what_is_read_stays(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        Path("out.onnx").rename("in.onnx")  # Its data keeps its name.
        (data,) = data_of("out.onnx")
        for _ in range(2):
            done = run("in.onnx", "-", "out.onnx", "--external-data", "never")
            assert done.exit_code == 0, done.output
            assert data_of("out.onnx") == [data]
        np.testing.assert_array_equal(result_of("in.onnx"), result_of("out.onnx"))
        write_files({"out.onnx": b"another model"})
        assert data_of("out.onnx") == [data]  # Who reads it is not known here.
        before = Path("w").read_bytes()
        done = run("big.onnx", "-", "./w")
        assert done.exit_code == 2
        assert "./w: holds weights of the input model, which would be lost" in done.stderr
        assert Path("w").read_bytes() == before

    @pytest.mark.parametrize("step", ["data", "model"])
    def test_what_fails_leaves_the_old_set(
        self, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        before = {path: path.read_bytes() for path in Path().glob("out.onnx*")}
        replace = os.replace

        def fails(source: Path, target: Path) -> None:
            if target.name.endswith(".data") == (step == "data"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"), "third.onnx", "w3")
        monkeypatch.setattr(os, "replace", fails)
        assert run("third.onnx", "-", "out.onnx").exit_code == 2
        assert run("big.onnx", "-", "out.onnx").exit_code == 2  # Data of the very same name.
        assert {path: path.read_bytes() for path in Path().glob("out.onnx*")} == before

    def test_an_interrupt_behind_the_last_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        save(wide())
        replace = os.replace

        def interrupted(source: Path, target: Path) -> None:
            replace(source, target)
            if target.name == "out.onnx":
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        assert run("big.onnx", "-", "out.onnx").exit_code == 1
        assert len(data_of("out.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 32)

    def test_interrupted_cleaning_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clean, calls = atomic.Waiting.clean, list[int]()

        def interrupted(self: atomic.Waiting) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            clean(self)

        monkeypatch.setattr(atomic.Waiting, "clean", interrupted)
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        refused("in.onnx", "masks.json", "new.onnx", saying="interrupted", status=1)
        # And no temporary file, which the fixture looks for.


@pytest.mark.usefixtures("here")
class TestLeftovers:
    @pytest.mark.parametrize("out", ["out.onnx", f"{'o' * 250}.onnx", "[a]*?.onnx"])
    def test_those_of_a_killed_run_are_cleared(self, out: str) -> None:
        killed, alive, other = atomic.Waiting(out), atomic.Waiting(out), atomic.Waiting("b.onnx")
        short = len(out) < 200  # Long names leave no room for those of data.
        data = atomic.Waiting(f"{out}.{'1' * 16}.data" if short else out)
        for each in (killed, data, alive, other):
            each.write(b"half")
        orphan = atomic.data_path(Path(out), "0" * 16) if short else None
        if orphan is not None:
            orphan.write_bytes(b"half")
        for each in (killed, data, other):  # The system takes the locks of a process with it.
            assert each._file is not None
            each._file.close()
        assert run("in.onnx", "masks.json", out).exit_code == 0
        assert not killed.beside.exists()
        assert not data.beside.exists()
        assert alive.beside.exists()
        assert other.beside.exists()
        assert orphan is None or not orphan.exists()
        alive.clean()
        other.clean()

    def test_files_that_only_look_alike_stay(self) -> None:
        alike = [Path(name) for name in ("out.onnx.data", "out.onnx.x.data", "b.onnx.0.data")]
        alike += [Path(f"b.onnx.{'0' * 16}.data"), Path(f"out.onnx.{'g' * 16}.data")]
        for path in alike:
            path.write_bytes(b"mine")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0
        assert all(path.exists() for path in alike)

    def test_without_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(atomic, "fcntl", None)
        left = atomic.Waiting("out.onnx")
        left.write(b"half")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0
        assert left.beside.exists()  # Nobody knows whether its process still runs.
        left.clean()


@pytest.mark.usefixtures("here", "either_way")
class TestBrokenData:
    def test_truncated(self) -> None:
        save(wide())
        for size in (0, 100, Path("w").stat().st_size - 1):
            os.truncate("w", size)
            refused("big.onnx", "-", "out.onnx", saying="big.onnx: ")

    @pytest.mark.parametrize("location", ["/etc/passwd", "../w", "none", ""])
    def test_elsewhere(self, location: str) -> None:
        save(wide())
        model = onnx.load("big.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        Path("bad.onnx").write_bytes(model.SerializeToString())
        refused("bad.onnx", "-", "out.onnx", saying="bad.onnx: its external weights cannot be read")

    def test_absolute_locations_in_a_file_are_no_mapped_weights(self) -> None:
        save(wide())
        model = onnx.load("big.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(Path("w").absolute()) if entry.key == "location" else entry.value
        Path("bad.onnx").write_bytes(model.SerializeToString())
        refused("bad.onnx", "-", "out.onnx", saying="bad.onnx: its external weights cannot be read")
        with pytest.raises(onnx_upscale.ModelError, match=r"not loaded; give its path"):
            onnx_upscale.optimize(model)


@pytest.mark.usefixtures("here")
class TestMapped:
    """Weights that stay in their files, and models that run part by part."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "_LEAST", 128)
        monkeypatch.setattr(parts, "MOST", 3000)

    def test_what_is_mapped(self) -> None:
        save(wide())
        whole, (slim, files) = read_model("big.onnx"), read_files("big.onnx", mapped=True)
        assert files == {Path("w")}
        for tensor, wanted in zip(slim.graph.initializer, whole.graph.initializer, strict=True):
            place = mapped.place_of(tensor)
            assert place is not None
            assert place.path == str(Path("w").absolute())
            assert not tensor.raw_data
            np.testing.assert_array_equal(mapped.array_of(tensor), numpy_helper.to_array(wanted))
            assert b"".join(mapped.blocks_of(tensor)) == wanted.raw_data
            assert mapped.size_of(tensor) == len(wanted.raw_data)
        again = mapped.embedded(slim).graph.initializer
        assert [t.raw_data for t in again] == [t.raw_data for t in whole.graph.initializer]
        assert not any(t.external_data or t.HasField("data_location") for t in again)

    def test_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "_BLOCK", 4)
        Path("w").write_bytes(b"0123456789")
        assert list(mapped.Place("w", 1, 9).blocks()) == [b"1234", b"5678", b"9"]
        with pytest.raises(OSError, match="shorter than it was"):
            list(mapped.Place("w", 1, 10).blocks())

    def test_types_that_numpy_lacks_are_read(self) -> None:
        net = Net(17, x=["n", 8])
        packed = helper.make_tensor("t", TensorProto.BFLOAT16, [8], bytes(range(16)), raw=True)
        net.initializers.append(packed)
        net("Add", "x", net("Cast", "t", to=1), name="last")
        save(net.model("last.0"))
        slim, _ = read_files("big.onnx", mapped=True)
        assert slim.graph.initializer[0].raw_data == bytes(range(16))

    @pytest.mark.parametrize("strategy", ["auto", "gather", "constrained"])
    @pytest.mark.parametrize("fraction", [0.3, 0.6])
    def test_it_gives_the_same_bytes(self, strategy: str, fraction: float) -> None:
        model = onnx.load(SAMPLE)
        rng = np.random.default_rng(0)
        masks: dict[str, Any] = {}
        for node in model.graph.node:
            if node.op_type == "Conv":
                weight = next(t for t in model.graph.initializer if t.name == node.input[1])
                gone = rng.permutation(weight.dims[0])[: int(fraction * weight.dims[0])]
                masks[node.name] = {"output": sorted(gone.tolist())}
        stated = {"version": 1, "masks": masks}
        plain = onnx_upscale.optimize(model, stated, strategy=strategy)
        save(model)
        result = onnx_upscale.optimize("big.onnx", stated, strategy=strategy)
        assert result.content == plain.content
        assert result.report["segments"] == plain.report["segments"]
        assert result.report["verify"]["ok"]
        result.save("two.onnx")
        onnx_upscale.verify("big.onnx", stated, "two.onnx", strategy=strategy)
        result.save("one.onnx", external_data="never")
        assert Path("one.onnx").read_bytes() == plain.content

    def test_a_wrong_result_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: Any) -> Any:
            emitted = emit(*arguments)
            (weight,) = (t for t in emitted.model.graph.initializer if t.name == "second.weight")
            weight.raw_data = b"\0\0\0\0" + weight.raw_data[4:]
            return emitted

        emit = apply
        monkeypatch.setattr(main_job, "apply", broken)
        save(wide())
        refused("big.onnx", "-", "out.onnx", saying="verification failed", status=3)

    def test_a_model_above_the_limit_stays_mapped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_MOST", 1000)
        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"))
        result = onnx_upscale.optimize("big.onnx")
        assert mapped.is_mapped(result.model)
        result.save("out.onnx")
        assert places("out.onnx") == {"c0": data_of("out.onnx")[0].name}
        assert result_of("out.onnx").shape == (3, 64)


class TestParts:
    def test_they_hold_what_they_may(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "_LEAST", 1)
        net = Net(17, x=["n", 8])
        tied, last = net.constant(net.random(8, 8), "tied"), "x"
        for _ in range(3):
            last = net("Add", net("MatMul", net("MatMul", last, tied), net.random(8, 8)), "x")
        model = net.model("n0.0", last)
        save(model, str(tmp_path / "big.onnx"))
        slim, _ = read_files(tmp_path / "big.onnx", mapped=True)
        assert parts.mapped_bytes(slim) == 4 * 256
        cut = parts.parts_of(slim, 512)
        assert cut is not None
        assert [[node.name for node in part.nodes] for part in cut] == [
            ["n0", "n1", "n2", "n3"],
            ["n4", "n5", "n6"],
            ["n7", "n8"],
        ]
        assert [part.gives for part in cut] == [("n0.0", "n3.0"), ("n6.0",), ("n8.0",)]
        x = np.random.default_rng(0).standard_normal((2, 8), np.float32)
        monkeypatch.setattr(parts, "MOST", 512)
        wanted, session = Session(model, optimized=False).run({"x": x}), Session(slim)
        found = session.run({"x": x})
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
        assert list(session.run({"x": x}, [last])) == [last]
        assert session.output_types == Session(model).output_types
        assert session.task({"x": x})() is not None

    def test_an_output_that_no_node_makes(self) -> None:
        net = Net(17, x=["n", 8])
        net("MatMul", "x", net.random(8, 8), name="last")
        assert parts.parts_of(net.model("last.0", "c0"), 1) is None

    def test_sequences_cannot_be_passed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mapped, "_LEAST", 1)
        net = Net(17, x=["n", 8])
        pair = net("SequenceConstruct", net("MatMul", "x", net.random(8, 8)), name="pair")
        first = net("SequenceAt", pair, np.int64(0), name="first")
        net("MatMul", first, net.random(8, 8), name="last")
        save(net.model("last.0"), str(tmp_path / "big.onnx"))
        slim, _ = read_files(tmp_path / "big.onnx", mapped=True)
        x = {"x": np.ones((1, 8), np.float32)}
        assert Session(slim).run(x)["last.0"].shape == (1, 8)
        monkeypatch.setattr(parts, "MOST", 256)
        with pytest.raises(onnx_upscale.VerifySetupError, match=r"'pair\.0', which is no tensor"):
            Session(slim).run(x)

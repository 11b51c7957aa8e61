"""`onnx-upscale recover`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_upscale
from command import refused, run, small

pytestmark = pytest.mark.usefixtures("here")


def samples(count: int = 10) -> np.typing.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, 3, 6, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def data(here: Path) -> None:
    np.save("data.npy", samples())


def test_it_writes_what_the_function_gives() -> None:
    result = run("recover", "in.onnx", "masks.json", "out.onnx", "--data", "data.npy")
    assert result.exit_code == 0, result.output
    first, header, error = result.stdout.splitlines()
    assert first == "out.onnx: 1 reader repaired on 8 samples, 2 held out"
    assert header.split() == ["held-out", "samples", "masked", "recovered"]
    assert error.startswith("second.0: error")
    assert result.stderr == ""
    expected = onnx_upscale.recover("in.onnx", "masks.json", samples())
    assert Path("out.onnx").read_bytes() == expected.content
    assert run("out.onnx", "-", "small.onnx").exit_code == 0


def test_options_reach_the_function() -> None:
    options = ["--samples", "5", "--lambda", "0.5", "--seed", "3", "--report", "report.json", "-q"]
    result = run("recover", "in.onnx", "masks.json", "out.onnx", "--data", "data.npy", *options)
    assert result.exit_code == 0, result.output
    assert result.output == ""
    expected = onnx_upscale.recover(
        "in.onnx", "masks.json", samples(), count=5, strength=0.5, seed=3
    )
    assert Path("out.onnx").read_bytes() == expected.content
    report = json.loads(Path("report.json").read_text())
    assert {**report, "seconds": 0} == {**expected.report, "seconds": 0}


def test_data_of_every_kind() -> None:
    np.savez("data.npz", x=samples())
    Path("given.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    print('no result')\n"
        "    yield {'x': np.load('data.npy')}\n"
    )
    written = []
    for source in ("data.npy", "data.npz", "given.py:batches", "given:batches"):
        result = run("recover", "in.onnx", "masks.json", "out.onnx", "--data", source)
        assert result.exit_code == 0, result.output
        assert "no result" not in result.stdout
        written.append(Path("out.onnx").read_bytes())
    assert len(set(written)) == 1


def test_a_folder_of_images_with_its_options() -> None:
    pil = pytest.importorskip("PIL.Image")
    Path("images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        pil.fromarray(image).save(f"images/{number}.png")
    options = ["--data", "images", "--mean", "0.5", "--std", "0.25"]
    result = run("recover", "in.onnx", "masks.json", "out.onnx", *options)
    assert result.exit_code == 0, result.output
    expected = onnx_upscale.recover(
        "in.onnx", "masks.json", onnx_upscale.Images("images", (0.5,), (0.25,))
    )
    assert Path("out.onnx").read_bytes() == expected.content


@pytest.mark.parametrize(
    ("data", "saying"),
    [
        ("none.npy", "none.npy: no such file"),
        ("none", "none: give an .npz or .npy file or a folder of images"),
        ("none:samples", "there is no module 'none'"),
        ("given.py:failing", "given.py:failing(): failed: ValueError: nothing today"),
        ("shape.npy", "shape.npy: input 'x': expected shape Nx3x6x6, found 2x3x6x5"),
        ("type.npy", "expected float32, found int64"),
        ("empty.npy", "empty.npy: there are no samples in it"),
        ("bad.npy", "input 'x' holds infinities or NaNs"),
        ("names.npz", "expected one array per input (x), found a, b"),
    ],
)
def test_wrong_data_is_refused(data: str, saying: str) -> None:
    Path("given.py").write_text("def failing(): raise ValueError('nothing today')\n")
    np.save("shape.npy", samples(2)[..., :5])
    np.save("type.npy", samples(2).astype(np.int64))
    np.save("empty.npy", samples(0))
    np.save("bad.npy", samples(2) * np.float32(np.nan))
    np.savez("names.npz", a=samples(2), b=samples(2))
    refused("recover", "in.onnx", "masks.json", "out.onnx", "--data", data, saying=saying)


def test_wrong_usage_is_refused() -> None:
    common = ["recover", "in.onnx", "masks.json"]
    refused(*common, "out.onnx", saying="--data")
    refused(*common, "in.onnx", "--data", "data.npy", saying="OUT in.onnx: is the input model")
    refused(*common, "out.onnx", "--data", "data.npy", "--lambda", "-1", saying="--lambda")
    refused(*common, "out.onnx", "--data", "data.npy", "--lambda", "inf", saying="--lambda inf")
    refused(*common, "out.onnx", "--data", "data.npy", "--samples", "0", saying="--samples")
    refused(*common, "out.onnx", "--data", "data.npy", "--size", "3", saying="--size")
    refused("recover", "in.onnx", "no.json", "out.onnx", "--data", "data.npy", saying="no.json")
    same = "OUT data.npy: is the samples"
    refused(*common, "data.npy", "--data", "data.npy", saying=same, out="data.npy")


def test_what_is_left_alone_is_said() -> None:
    net = small()
    ints = net.constant(np.ones((4, 5, 1, 1), np.int8), "ints")
    weight = net("DequantizeLinear", ints, np.float32(0.1), np.int8(0))
    onnx.save(net.model(net("Conv", "second.0", weight, name="last")), "in.onnx")
    result = run("recover", "in.onnx", "masks.json", "out.onnx", "--data", "data.npy")
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "onnx-upscale: warning: last: not repaired, for their weights are quantized\n"
    )


def test_the_main_job_recovers_first() -> None:
    given = ["in.onnx", "masks.json", "out.onnx", "--recover", "--data", "data.npy"]
    result = run(*given, "--report", "report.json")
    assert result.exit_code == 0, result.output
    expected = onnx_upscale.optimize("in.onnx", "masks.json", recover=samples())
    assert Path("out.onnx").read_bytes() == expected.content
    *_, proof, fidelity, used = result.stdout.splitlines()
    assert proof.startswith("equal to the repaired masked model on 2 random inputs")
    assert fidelity.startswith("second.0: error ")
    assert used == "recovered on 8 samples; 2 held out show the above"
    report = json.loads(Path("report.json").read_text())
    assert report["input"]["path"] == "in.onnx"
    assert report["masks"]["pruned_inputs"] == 4
    assert report["recovered"]["outputs"] == expected.report["recovered"]["outputs"]
    Path("given.py").write_text(
        "import numpy as np\ndef batches():\n    print('no result')\n"
        "    yield {'x': np.load('data.npy')}\n"
    )
    other = run(*given[:-1], "given.py:batches")
    assert "no result" not in other.stdout
    assert Path("out.onnx").read_bytes() == expected.content


def test_recovering_in_the_main_job_refuses_what_cannot_be_meant() -> None:
    common = ["in.onnx", "masks.json", "out.onnx"]
    both = "--recover and --data: the one needs the other"
    refused(*common, "--recover", saying=both)
    refused(*common, "--data", "data.npy", saying=both)
    refused(*common, "--recover", "--data", "none.npy", saying="none.npy: no such file")
    refused(*common, "--recover", "--data", "data.npy", "--size", "8", saying="--size")
    refused(*common, "--size", "8", saying="--size")
    same = "OUT data.npy: is the samples"
    refused(*common[:2], "data.npy", "--recover", "--data", "data.npy", saying=same, out="data.npy")


def test_a_mask_file_of_nothing_is_warned_of() -> None:
    Path("empty.json").write_text('{"version": 1, "masks": {}}')
    result = run("in.onnx", "empty.json", "out.onnx")
    assert result.exit_code == 0
    assert "onnx-upscale: warning: the masks name no layer, so nothing is removed" in result.stderr
    Path("report.json").write_text("")
    assert run("in.onnx", "empty.json", "out.onnx", "-q").output == ""

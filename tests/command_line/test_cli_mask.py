"""`onnx-upscale mask`: what it writes, prints and refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import onnx_upscale
from build import Net
from onnx_upscale.cli import main, progress
from onnx_upscale.optimizer.load.masks import read_masks
from pruning import chain

BEFORE = b"what was there before"


def net() -> Net:
    made = Net(17, x=["batch", 3, 6, 6])
    first = made("Conv", "x", made.constant(made.random(8, 3, 3, 3), "a.weight"), name="a")
    second = made("Conv", made("Relu", first), made.constant(made.random(6, 8, 1, 1), "b.weight"))
    made("Conv", made("Relu", second), made.constant(made.random(5, 6, 1, 1), "c.weight"), name="c")
    return made


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with in.onnx, in which no temporary file may be left."""
    monkeypatch.chdir(tmp_path)
    onnx.save(net().model("c.0"), "in.onnx")
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["mask", *arguments])


def refused(*arguments: str, saying: str, out: str = "out.json") -> None:
    """Runs what must fail in one clear line, without OUT and with one that must stay."""
    for before in (None, BEFORE):
        Path(out).unlink(missing_ok=True)
        if before is not None:
            Path(out).write_bytes(before)
        result = run("in.onnx", out, *arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("onnx-upscale: error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert saying in result.stderr
        assert (Path(out).read_bytes() if Path(out).exists() else None) == before


def test_it_writes_what_the_function_gives() -> None:
    result = run("in.onnx", "out.json", "--criterion", "l1", "--amount", "0.5", "--layers", "*")
    assert result.exit_code == 0, result.output
    summary, predicted = result.stdout.splitlines()
    assert summary == "out.json: 2 layers, 7 of 14 input channels pruned"
    assert predicted.startswith("predicted latency: ")
    expected = onnx_upscale.mask("in.onnx", "l1", 0.5, layers=["*"])
    assert json.loads(Path("out.json").read_text()) == expected
    assert onnx_upscale.optimize("in.onnx", "out.json").report["verify"]["ok"]


def test_options_reach_the_criterion() -> None:
    options = ["--criterion", "random", "--amount", "0.5", "--side", "output", "--scope", "global"]
    more = ["--seed", "7", "--skip", "none*", "--skip", "a", "--constrained", "-q"]
    refused(*options, *more, saying="--skip none*: matches no layer")
    more.remove("--skip")
    more.remove("none*")
    result = run("in.onnx", "out.json", *options, *more)
    assert result.output == ""
    assert json.loads(Path("out.json").read_text()) == onnx_upscale.mask(
        "in.onnx", "random", 0.5, side="output", scope="global", seed=7, skip=["a"],
        constrained=True,
    )  # fmt: skip
    run("in.onnx", "out.json", "--criterion", "l1", "--amount", "0.5", "--layers", "c*")
    assert list(json.loads(Path("out.json").read_text())["masks"]) == ["c.weight"]


@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_both_forms_say_the_same_and_repeat(criterion: str) -> None:
    given = ["--criterion", criterion, "--amount", "0.4", "--layers", "*"]
    for out in ("out.json", "out.npz"):
        assert run("in.onnx", out, *given).exit_code == 0
        content = Path(out).read_bytes()
        assert run("in.onnx", out, *given).exit_code == 0
        assert Path(out).read_bytes() == content
    with np.load("out.npz") as arrays:
        assert {name: (len(array), array.dtype) for name, array in arrays.items()} == {
            "b.weight.input": (8, np.dtype(bool)),
            "c.weight.input": (6, np.dtype(bool)),
        }
    widths = {"b.weight": 8, "c.weight": 6}
    found = [
        {mask.key: mask.pruned(widths[mask.key]).tolist() for mask in read_masks(out)}
        for out in ("out.json", "out.npz")
    ]
    assert found[0] == found[1]
    assert [len(channels) for channels in found[0].values()] == [3, 2]


def test_calibration_data_by_file_and_folder() -> None:
    data = np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)
    np.save("data.npy", data)
    hrank = ["--criterion", "hrank", "--amount", "0.5"]
    assert run("in.onnx", "out.json", *hrank, "--data", "data.npy").exit_code == 0
    assert json.loads(Path("out.json").read_text()) == onnx_upscale.mask(
        "in.onnx", "hrank", 0.5, data=data
    )
    pil = pytest.importorskip("PIL.Image")
    Path("images").mkdir()
    refused(*hrank, "--data", "images", saying="images: there are no images in it")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    pil.fromarray(pixels).save("images/a.png")
    told = ["--mean", "0.5,0.4,0.3", "--std", "0.2", "--size", "8"]
    assert run("in.onnx", "out.json", *hrank, "--data", "images", *told).exit_code == 0
    images = onnx_upscale.Images("images", (0.5, 0.4, 0.3), (0.2,), 8)
    assert json.loads(Path("out.json").read_text()) == onnx_upscale.mask(
        "in.onnx", "hrank", 0.5, data=images
    )
    refused(*hrank, "--data", "images", "--mean", "a,b", saying="'a,b' is not of the form")
    refused(*hrank, "--data", "images", "--std", "0", saying="--std: must be more than 0")
    Path("images/broken.jpg").write_bytes(pixels.tobytes())
    refused(*hrank, "--data", "images", saying="broken.jpg: not a readable image")
    refused(*hrank, "--data", "data.npy", "--size", "8", saying="--size: are for a folder")


def test_images_without_pillow_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"")
    refused(
        "--criterion", "hrank", "--amount", "0.5", "--data", "images", saying="onnx-upscale[images]"
    )


def test_results_of_other_tools_are_taken_over() -> None:
    Path("pairs.json").write_text(json.dumps([["b.weight", 1], ["c.weight", 0]]))
    result = run("in.onnx", "out.json", "--from", "upscale", "pairs.json")
    assert result.stdout == "out.json: 2 layers, 2 of 14 input channels pruned\n"
    assert json.loads(Path("out.json").read_text())["masks"] == {
        "b.weight": {"input": [1]},
        "c.weight": {"input": [0]},
    }
    Path("none.json").write_text("[]")
    result = run("in.onnx", "out.json", "--from", "upscale", "none.json")
    assert result.stderr.startswith("onnx-upscale: warning: no channel is pruned: ")
    mask = np.ones((8, 3, 3, 3))
    mask[2], mask[3, 0] = 0, 0
    np.savez("state.npz", **{"a.weight_mask": mask})  # type: ignore[arg-type]
    result = run("in.onnx", "out.npz", "--from", "torch", "state.npz")
    assert result.stdout == "out.npz: 1 layer, 1 of 8 output channels pruned\n"
    assert "warning: state.npz: 'a.weight': 9 of 216 weights" in result.stderr
    assert run("in.onnx", "out.npz", "--from", "torch", "state.npz", "-q").output == ""


def test_what_is_left_alone_is_said_on_one_line() -> None:
    l1 = ["--criterion", "l1", "--amount", "0.5"]
    result = run("in.onnx", "out.json", *l1)
    assert result.exit_code == 0
    (left,) = (line for line in result.stderr.splitlines() if "left alone" in line)
    assert left == (
        "onnx-upscale: note: left alone unless --layers names them: at a model input: a.weight; "
        "right before an output: c.weight"
    )
    assert "--data SAMPLES says how far" in result.stderr
    assert result.stdout.splitlines()[0] == "out.json: 1 layer, 4 of 8 input channels pruned"
    assert run("in.onnx", "out.json", *l1, "--layers", "*").stderr.count("c.weight") == 0


def test_what_masks_do_to_samples_is_said() -> None:
    np.save("data.npy", np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32))
    Path("feed.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    print('not a result')\n"
        "    yield {'x': np.load('data.npy')}\n"
    )
    l1 = ["--criterion", "l1", "--amount", "0.5"]
    found = [run("in.onnx", "out.json", *l1, "--data", d) for d in ("data.npy", "feed.py:batches")]
    for result in found:
        assert result.exit_code == 0, result.output
        assert "warning: the masked model is far from the original: on 20 samples" in result.stderr
        assert "SAMPLES" not in result.stderr
    assert found[0].stdout == found[1].stdout
    assert found[0].stdout.splitlines()[-1].endswith("on 20 samples")
    same = ["--criterion", "l1", "--amount", "0", "--data", "data.npy", "--target", "cpu-avx512"]
    result = run("in.onnx", "out.json", *same)
    assert "far from the original" not in result.stderr
    assert "warning: no channel is pruned" in result.stderr
    assert result.stdout.splitlines()[1:] == [
        "predicted latency: 1.00 of the unpruned model's",
        "c.0: error 0.0% on 20 samples",
    ]


def test_a_budget_in_place_of_an_amount() -> None:
    rng = np.random.default_rng(0)
    onnx.save(chain(*rng.standard_normal((3, 64, 64)), size=14), "in.onnx")
    np.save("data.npy", rng.standard_normal((20, 2, 14, 14)).astype(np.float32))
    for criterion in ("l1", "reconstruction"):
        given = ["--criterion", criterion, "--budget", "0.7", "--data", "data.npy"]
        given += ["--target", "cpu-avx512", "--layers", "*"]
        result = run("in.onnx", "out.json", *given)
        assert result.exit_code == 0, result.output
        expected = onnx_upscale.mask(
            "in.onnx", criterion, budget=0.7, data="data.npy", target="cpu-avx512", layers=["*"]
        )
        assert json.loads(Path("out.json").read_text()) == expected
        refused(*given, "--budget", "0.01", saying="--budget 0.01: cannot be")
    refused(*given, "--amount", "0.5", saying="either --amount, the share of channels to prune, or")


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["--criterion", "l1", "--budget", "1.5"], "--budget 1.5: must be a share between 0 and 1"),
        (["--criterion", "l1", "--budget", "5ms"], "'5ms' is not a valid float"),
        (["--criterion", "l1", "--budget", "0.5", "--target", "abacus"], "abacus"),
        (["--criterion", "reconstruction", "--amount", "0.5"], "give some with --data"),
        (["--from", "upscale", "x.json", "--budget", "0.5"], "--budget: has no meaning"),
        (["--from", "upscale", "x.json", "--side", "input"], "--side: has no meaning"),
        (["--from", "upscale", "x.json", "--scope", "global"], "--scope: has no meaning"),
        (["--from", "upscale", "x.json", "--seed", "0"], "--seed: has no meaning"),
        (["--from", "upscale", "x.json", "--batch-size", "8"], "--batch-size: has no meaning"),
        (["--from", "upscale", "x.json", "--target", "cpu"], "--target: has no meaning"),
        (["--criterion", "l1"], "give the --amount"),
        (["--amount", "0.5"], "give a --criterion"),
        (["--criterion", "l1", "--amount", "1.5"], "--amount 1.5: must be from 0 to 1"),
        (["--criterion", "l1", "--amount", "much"], "'much' is not a valid float"),
        (["--criterion", "l3", "--amount", "0.5"], "'l3' is not one of 'l1', 'l2'"),
        (["--criterion", "hrank", "--amount", "0.5"], "give calibration data with --data"),
        (["--criterion", "bn", "--amount", "0.5"], "has no BatchNormalization"),
        (["--criterion", "l1", "--amount", "0.5", "--data", "x.npy"], "x.npy: no such file"),
        (["--criterion", "hrank", "--amount", "0.5", "--data", "x.npy"], "x.npy: no such file"),
        (["--criterion", "l1", "--amount", "0.5", "--layers", "d"], "--layers d: matches no layer"),
        (["--from", "keras", "x.json"], "unknown format 'keras'"),
        (["--from", "torch", "x.json"], "x.json: no such file"),
        (["--from", "torch", "in.onnx"], "in.onnx: expected a .json"),
        (["--from", "upscale", "x.json", "--criterion", "l1"], "--criterion: has no meaning"),
        (["--from", "upscale", "x.json", "--constrained"], "--constrained: has no meaning"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], saying: str) -> None:
    refused(*arguments, saying=saying)


def test_wrong_data_is_refused() -> None:
    np.save("data.npy", np.ones((2, 6, 6, 3), np.float32))
    hrank = ["--criterion", "hrank", "--amount", "0.5", "--data"]
    refused(*hrank, "data.npy", saying="expected shape Nx3x6x6, found 2x6x6x3")
    np.save("data.npy", np.ones((2, 3, 6, 6), np.complex64))
    refused(*hrank, "data.npy", saying="expected float32, found complex64")
    np.savez("data.npz", x=np.ones((2, 3, 6, 6), np.float32), y=np.ones(2))
    refused(*hrank, "data.npz", saying="expected one array per input (x), found x, y")


def test_out_is_a_mask_file_of_its_own() -> None:
    l1 = ["--criterion", "l1", "--amount", "0.5"]
    refused(*l1, saying="out.txt: masks are written as .json or .npz", out="out.txt")
    assert "masks are written as" in run("missing.onnx", "out.txt", *l1).stderr  # Before the work.
    Path("pairs.json").write_text("[]")
    result = run("in.onnx", "pairs.json", "--from", "upscale", "pairs.json")
    assert result.exit_code == 2
    assert "is the file to import, which would be lost" in result.stderr
    assert Path("pairs.json").read_text() == "[]"
    result = run("in.onnx", "pairs.json", *l1, "--target", "pairs.json")
    assert "is the profile, which would be lost" in result.stderr
    assert Path("pairs.json").read_text() == "[]"
    Path("in.json").symlink_to("in.onnx")
    result = run("in.onnx", "in.json", *l1)
    assert "is the input model, which would be lost" in result.stderr
    assert run("missing.onnx", "out.json", *l1).exit_code == 2
    assert "no directory" in run("in.onnx", "none/out.json", *l1).stderr


class Terminal(io.StringIO):
    """A standard error on which somebody looks."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, patience, shown in (
        (Terminal(), -1.0, True),
        (Terminal(), 3600.0, False),
        (io.StringIO(), -1.0, False),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        with progress.progress_bar("Scoring") as report:
            for done in range(1, 4):
                report(done, 3)
        assert ("Scoring" in stream.getvalue()) == shown
        assert ("100%" in stream.getvalue()) == shown

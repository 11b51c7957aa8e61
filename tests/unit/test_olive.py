"""Passes for Olive, run by Olive itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, assert_close, run
from onnx_upscale import UpscaleError
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load
from pruning import network

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
pytest.importorskip("olive")
pytestmark = pytest.mark.filterwarnings("ignore")  # Of all that Olive imports.

from olive.data.registry import Registry  # noqa: E402
from olive.workflows import run as olive_run  # noqa: E402

from onnx_upscale.olive import RunError, package_config  # noqa: E402

MASKS: dict[str, Any] = {
    "version": 1,
    "masks": {
        "inner.weight": {"input": {"prune": [0, 3, 5]}},
        "head.weight": {"input": {"keep": [1, 2, 4, 6]}},
    },
}
IMAGES: Array = np.random.default_rng(0).standard_normal((24, 3, 6, 6)).astype(np.float32)
DATA = {
    "name": "images",
    "load_dataset_config": {"type": "some_images"},
    "dataloader_config": {"batch_size": 8},
}


class Images:
    """As a data set of torch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[dict[str, Array], int]:
        return {self.name: IMAGES[index]}, 0


@Registry.register_dataset()  # type: ignore[untyped-decorator]
def some_images(name: str = "x", **_: Any) -> Images:
    return Images(name)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[onnx.ModelProto]:
    """A model that is also a file, in a folder for everything else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLIVE_CACHE_DIR", str(tmp_path / "cache"))
    made = network()
    onnx.save(made, "in.onnx")
    yield made


def ran(*passes: dict[str, Any], **config: Any) -> onnx.ModelProto:
    """What Olive makes of the model by some passes."""
    settings = {
        "input_model": {"type": "ONNXModel", "model_path": "in.onnx"},
        "passes": {f"pass{number}": each for number, each in enumerate(passes)},
        "output_dir": "out",
        "cache_dir": "cache",
        "log_severity_level": 3,
        **config,
    }
    olive_run(settings, package_config=package_config())
    return onnx.load("out/model.onnx")


def optimize(**options: Any) -> dict[str, Any]:
    return {"type": "UpscaleOptimize", "target": "cpu-avx512", **options}


def prune(**options: Any) -> dict[str, Any]:
    return {"type": "UpscalePrune", "target": "cpu-avx512", "runs": 2, **options}


def test_the_main_job(model: onnx.ModelProto) -> None:
    found = ran(optimize(masks=MASKS, strategy="gather", inputs={"x": [2, 3, 6, 6]}))
    options: dict[str, Any] = {"strategy": "gather", "target": "cpu-avx512"}
    assert found == onnx_upscale.optimize(model, MASKS, **options).model
    report = json.loads(Path("out/onnx-upscale.json").read_text())
    assert (report["strategy"], report["verify"]["ok"]) == ("gather", True)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_masks_count_by_what_is_in_the_file(model: onnx.ModelProto, suffix: str) -> None:
    """Olive gives a result again for the same configuration, which has the file's name in it."""
    path = f"masks{suffix}"
    for gone in ([0, 1], [5]):
        masks = {"version": 1, "masks": {"head.weight": {"input": gone}}}
        if suffix == ".npz":
            flags = np.ones(16, bool)
            flags[gone] = False
            np.savez(path, **{"head.weight.input": flags})  # type: ignore[arg-type]
        else:
            Path(path).write_text(json.dumps(masks))
        found = ran(optimize(masks=path))
        masked = masked_model(load(model, masks).graph)
        inputs = {"x": IMAGES[:2]}
        assert_close(run(masked, inputs), run(found, inputs))


def test_weights_in_files_beside(model: onnx.ModelProto) -> None:
    model = network(64)
    onnx.save(model, "in.onnx")
    masks = {"version": 1, "masks": {"inner.weight": {"input": [3]}}}
    found = ran(optimize(masks=masks, external_data="always"))
    assert [path.suffix for path in Path("out").glob("model.onnx.*")] == [".data"]
    masked = masked_model(load(model, masks).graph)
    assert_close(run(masked, {"x": IMAGES[:2]}), run(found, {"x": IMAGES[:2]}))


def test_repaired_by_data_of_olive(model: onnx.ModelProto) -> None:
    step = optimize(masks=MASKS, recover_data_config="images")
    found = ran(step, data_configs=[DATA])
    expected = onnx_upscale.optimize(model, MASKS, target="cpu-avx512", recover=IMAGES)
    assert_close(run(expected.model, {"x": IMAGES[:2]}), run(found, {"x": IMAGES[:2]}))


def test_prune_by_data_of_olive(model: onnx.ModelProto) -> None:
    found = ran(prune(data_config="images", macs=0.7, layers=["inner*"]), data_configs=[DATA])
    options: dict[str, Any] = {"target": "cpu-avx512", "runs": 2, "layers": ["inner*"]}
    expected = onnx_upscale.prune(model, IMAGES, macs=0.7, **options)
    assert_close(run(expected.model, {"x": IMAGES[:2]}), run(found, {"x": IMAGES[:2]}))
    report = json.loads(Path("out/onnx-upscale.json").read_text())
    assert report["macs"]["after"] < report["macs"]["before"]


def test_one_pass_after_the_other(model: onnx.ModelProto) -> None:
    """Of Olive's own as well: pruned, then with names of its own for dimensions."""
    fixed = {"type": "DynamicToFixedShape", "dim_param": ["batch"], "dim_value": [2]}
    found = ran(optimize(masks=MASKS), fixed, optimize())
    assert found.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    masked = masked_model(load(model, MASKS).graph)
    assert_close(run(masked, {"x": IMAGES[:2]}), run(found, {"x": IMAGES[:2]}))
    assert Path("out/onnx-upscale.json").exists()


WRONG = {"version": 1, "masks": {"inner.wight": {"input": [0]}}}
NAMED = {**DATA, "load_dataset_config": {"type": "some_images", "name": "y"}}


@pytest.mark.parametrize(
    ("step", "data", "saying"),
    [
        (
            lambda: optimize(masks="none.json"),
            DATA,
            "UpscaleOptimize: none.json: no such mask file",
        ),
        (lambda: optimize(masks=WRONG), DATA, "UpscaleOptimize: mask 'inner.wight'"),
        (lambda: optimize(masks={"version": 2}), DATA, "UpscaleOptimize: masks: unknown version 2"),
        (lambda: optimize(masks=3), DATA, "UpscaleOptimize: option 'masks': "),
        (lambda: optimize(samples="two"), DATA, "UpscaleOptimize: option 'samples': "),
        (lambda: optimize(stratgy="gather"), DATA, "unknown option 'stratgy'; closest: strategy"),
        (lambda: optimize(strategy="best"), DATA, "UpscaleOptimize: unknown strategy 'best'"),
        (lambda: optimize(external_data="no"), DATA, "unknown `external_data` 'no'"),
        (lambda: prune(macs=0.7), DATA, "UpscalePrune: option 'data_config': Field required"),
        (lambda: prune(data_config="images"), DATA, "UpscalePrune: give exactly one goal of"),
        (lambda: prune(data_config="images", macs=2), DATA, "UpscalePrune: `macs`"),
        (lambda: prune(data_config="images", macs=0.7), NAMED, "found none"),
    ],
)
def test_what_cannot_be_meant_stops_olive(
    model: onnx.ModelProto, step: Callable[[], dict[str, Any]], data: Any, saying: str
) -> None:
    with pytest.raises(RunError) as caught:
        ran(step(), data_configs=[data])
    assert saying in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UpscaleError)
    assert isinstance(caught.value, ValueError)
    assert not Path("out/model.onnx").exists()


def test_its_package_configuration_has_all_others() -> None:
    passes = package_config()["passes"]
    assert {"UpscaleOptimize", "UpscalePrune", "OnnxStaticQuantization"} <= set(passes)
    assert json.loads(json.dumps(package_config())) == package_config()

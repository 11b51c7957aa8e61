"""docs/recipes/ultralytics.md: a detector from ultralytics, pruned, and loaded there again.

    PYTHONPATH=tools python tools/recipes/yolo.py FOLDER [--model yolov8n] [--epochs 10]

Needs ultralytics, onnxslim and pillow. Trains the network on pictures of digits, for which nothing
has to be fetched, unless FOLDER/MODEL.pt is there.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from recipes.operators import declare_operators
from recipes.scenes import SIZE, write_scenes
from recipes.shell import run, show_versions

_SAMPLES = '''\
"""Images as ultralytics prepares them, without labels."""

from pathlib import Path

import cv2
import numpy as np
from ultralytics.data.augment import LetterBox


def images():
    box = LetterBox(({size}, {size}), auto=False)
    for path in sorted(Path("{images}").iterdir()):
        image = box(image=cv2.imread(str(path)))[..., ::-1]  # RGB
        yield {{"images": image.transpose(2, 0, 1)[None].astype(np.float32) / 255}}
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="yolov8n")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--macs", default="0.7")
    args = parser.parse_args()
    declare_operators()
    folder: Path = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "scenes" / "digits.yaml"
    if not data.exists():
        write_scenes(data.parent, 320, 100)
    show_versions("ultralytics", "torch", "onnxslim", "onnx", "onnxruntime")
    weights = folder / f"{args.model}.pt"
    if not weights.exists():
        _train(args.model, data, args.epochs, weights)

    from ultralytics import YOLO

    name = args.model
    YOLO(str(weights)).export(format="onnx", imgsz=SIZE, verbose=False)
    (folder / "samples.py").write_text(_SAMPLES.format(size=SIZE, images="scenes/images/train"))
    run(
        f"onnx-upscale prune {name}.onnx {name}.pruned.onnx --data samples.py:images "
        f"--macs {args.macs} --recovered-out {name}.masked.onnx --masks-out {name}.masks.json",
        folder,
    )
    run(f"onnx-upscale bench {name}.onnx {name}.pruned.onnx --no-memory", folder)
    run(
        f"onnx-upscale mask {name}.onnx {name}.l1.json --criterion l1 --amount 0.2 --constrained",
        folder,
    )
    run(
        f"onnx-upscale {name}.onnx {name}.l1.json {name}.l1.onnx "
        "--recover --data samples.py:images",
        folder,
    )
    before, masked, after, by_size = (
        _looked_at(folder / f"{name}{kind}.onnx", data)
        for kind in ("", ".masked", ".pruned", ".l1")
    )
    print()
    for kind in ("map50", "map"):
        print(f"{kind} {before[kind]:.3f}, pruned {after[kind]:.3f}, by L1 {by_size[kind]:.3f}")
    same = len(after["boxes"]) == len(masked["boxes"]) and all(
        one.shape == other.shape and np.allclose(one, other, atol=1e-2)
        for one, other in zip(masked["boxes"], after["boxes"], strict=True)
    )
    count = sum(map(len, after["boxes"]))
    print(f"{count} boxes on {len(after['boxes'])} pictures, masked model and pruned one:", same)
    print("metadata the same:", before["metadata"] == after["metadata"])
    print(", ".join(sorted(after["metadata"])))
    assert same
    assert before["metadata"] == after["metadata"] == by_size["metadata"]


def _train(name: str, data: Path, epochs: int, to: Path) -> None:
    from ultralytics import YOLO

    model = YOLO(f"{name}.yaml")
    model.train(
        data=str(data),
        imgsz=SIZE,
        epochs=epochs,
        seed=0,
        workers=0,
        cache="ram",
        device="cpu",
        project=str(to.parent / "runs"),
        optimizer="AdamW",
        lr0=0.002,
        warmup_epochs=1,
        mosaic=0.0,
        fliplr=0.0,  # Digits have a left and a right.
        pretrained=False,
        amp=False,
        plots=False,
        val=False,
        verbose=False,
    )
    shutil.copy(model.trainer.last, to)


def _looked_at(path: Path, data: Path) -> dict[str, Any]:
    """What ultralytics makes of an ONNX file."""
    from ultralytics import YOLO

    model = YOLO(str(path), task="detect")
    found = model.val(data=str(data), imgsz=SIZE, batch=1, plots=False, workers=0, verbose=False)
    pictures = sorted((data.parent / "images" / "val").iterdir())
    seen = [
        model.predict(str(picture), imgsz=SIZE, rect=False, verbose=False)[0]
        for picture in pictures
    ]
    boxes = [result.boxes.data.numpy() for result in seen]
    read = onnx.load(path, load_external_data=False)
    return {
        "map50": found.box.map50,
        "map": found.box.map,
        "boxes": boxes,
        "metadata": {each.key: each.value for each in read.metadata_props},
    }


if __name__ == "__main__":
    main()

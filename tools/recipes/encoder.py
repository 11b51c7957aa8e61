"""docs/recipes/transformers.md: an encoder from transformers, its heads and its MLP pruned.

    PYTHONPATH=tools python tools/recipes/encoder.py FOLDER [--exporter optimum]

Needs transformers, and optimum[onnx] if that exports. The network has a configuration of its own
and is trained to say which of four words a text has most of, so that nothing has to be fetched.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic
from torch import nn

import onnx_upscale
from recipes.operators import declare_operators
from recipes.shell import run, show_versions

LENGTH, WORDS, KINDS = 24, 64, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--macs", default="0.6")
    parser.add_argument("--exporter", choices=["torch", "optimum"], default="torch")
    args = parser.parse_args()
    folder: Path = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    declare_operators()
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    show_versions("transformers", "torch", "onnx", "onnxruntime")
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=WORDS,
        max_position_embeddings=LENGTH,
        n_layers=2,
        n_heads=4,
        dim=64,
        hidden_dim=256,
        num_labels=KINDS,
        attn_implementation="eager",
    )
    model = DistilBertForSequenceClassification(config)
    chance = np.random.default_rng(0)
    _train(model, chance, args.steps)

    if args.exporter == "torch":
        _export(model.eval(), folder / "encoder.onnx", chance)
    else:
        _export_by_optimum(model.eval(), folder)
    ids, mask, _ = _texts(chance, 256)
    np.savez(folder / "texts.npz", input_ids=ids, attention_mask=mask)
    run(
        f"onnx-upscale prune encoder.onnx pruned.onnx --data texts.npz --macs {args.macs} "
        "--report pruned.json",
        folder,
    )
    _write_heads(folder)
    run("onnx-upscale encoder.onnx heads.json heads.onnx --recover --data texts.npz", folder)
    quantize_dynamic(folder / "pruned.onnx", folder / "pruned.int8.onnx")
    run("onnx-upscale bench encoder.onnx pruned.onnx pruned.int8.onnx --no-memory", folder)
    run(
        "onnx-upscale prune encoder.onnx mlp.onnx --data texts.npz --macs 0.8 --layers *ffn*",
        folder,
    )
    print("\nwhat layers read, before and after")
    for name, (before, after) in json.loads((folder / "pruned.json").read_text())["kept"].items():
        print(f"{name:52} {before:4} {after:4}")
    ids, mask, kinds = _texts(chance, 1000)
    for name in ("encoder", "pruned", "pruned.int8", "mlp", "heads"):
        session = onnxruntime.InferenceSession(
            str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        print(f"{name:11} {(logits.argmax(1) == kinds).mean():.1%}")


def _write_heads(folder: Path) -> None:
    """Masks for one head of each block."""
    graph = onnx.load(folder / "encoder.onnx").graph
    width, gone = 16, {0: [3], 1: [0]}
    masks = {}
    for block, heads in gone.items():
        where = f"distilbert.transformer.layer.{block}.attention.out_lin"
        node = "/" + where.replace(".", "/").replace("layer/", "layer.") + "/MatMul"
        key = node if any(each.name == node for each in graph.node) else f"model.{where}.weight"
        masks[key] = {"input": [h * width + place for h in heads for place in range(width)]}
    (folder / "heads.json").write_text(json.dumps({"version": 1, "masks": masks}))


def _export(model: nn.Module, path: Path, chance: np.random.Generator) -> None:
    class Encoder(nn.Module):
        """Gives a tensor in place of a dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids, mask, _ = _texts(chance, 2)
    example = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    onnx_upscale.export(Encoder().eval(), example, path)


def _export_by_optimum(model: nn.Module, folder: Path) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(
        model, output=folder / "optimum", task="text-classification", do_validation=False
    )
    (folder / "optimum" / "model.onnx").rename(folder / "encoder.onnx")


def _texts(chance: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words, which of them are there, and which of the first four is there most often."""
    ids = chance.integers(KINDS, WORDS, (count, LENGTH))
    lengths = chance.integers(LENGTH // 2, LENGTH + 1, count)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    kinds = chance.integers(0, KINDS, count)
    for row, (kind, length) in enumerate(zip(kinds, lengths, strict=True)):
        places = chance.permutation(length)[:9]
        other = chance.choice([each for each in range(KINDS) if each != kind], 4)
        ids[row, places] = np.concatenate([[kind] * 5, other])
        most = np.bincount(ids[row, :length], minlength=KINDS)[:KINDS].argmax()
        kinds[row] = most
    return ids, mask, kinds


def _train(model: nn.Module, chance: np.random.Generator, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for _ in range(steps):
        ids, mask, kinds = map(torch.from_numpy, _texts(chance, 32))
        loss = model(input_ids=ids, attention_mask=mask, labels=kinds).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()

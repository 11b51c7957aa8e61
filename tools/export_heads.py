"""Export transformers with random weights in the forms that `tools/heads.py` prunes.

    python tools/export_heads.py FOLDER

Writes NAME.FORM.onnx: `plain` and `opset23` by torch's exporter; `fused` and `multi-head` by
onnxruntime's optimizer for transformers; `in one` where that leaves attention written out, with
Attention or GroupQueryAttention put in its place here. Needs the `export` extra and transformers.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
import transformers
from onnx import helper, numpy_helper
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from torch import Tensor, nn

# A CPU torch has no compiled part of torchvision; its operators need to have names.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for each in ("nms", "qnms"):
    LIBRARY.define(f"{each}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

LAYERS, WIDTH, HEADS, FEATURES, SHARED = 4, 256, 8, 512, 4
TOKENS, WORDS = 16, 100

Made: TypeAlias = "tuple[_First, Tensor]"
Writer: TypeAlias = "Callable[[_First, Tensor, Path], None]"


class _First(nn.Module):
    """A model without what it returns besides its first result."""

    def __init__(self, model: nn.Module, **how: Any) -> None:
        super().__init__()
        self.how = how
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.model(x, return_dict=False, **self.how)[0]
        return first


def _words() -> Tensor:
    return torch.randint(0, WORDS, (1, TOKENS))


def bert() -> Made:
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FEATURES,
    )
    return _First(transformers.BertModel(config)), _words()


def vit() -> Made:
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FEATURES,
        image_size=64,
        patch_size=16,
    )
    return _First(transformers.ViTModel(config)), torch.rand(1, 3, 64, 64)


def gpt2() -> Made:
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        bos_token_id=1,
        eos_token_id=2,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=FEATURES,
    )
    return _First(transformers.GPT2Model(config), use_cache=False), _words()


def llama(shared: int = HEADS) -> Made:
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=shared,
        intermediate_size=FEATURES,
    )
    return _First(transformers.LlamaModel(config), use_cache=False), _words()


BOTH = ("plain", "opset23")

MODELS: Mapping[str, tuple[Callable[[], Made], tuple[str, ...]]] = {
    "bert": (bert, (*BOTH, "fused", "multi-head")),
    "vit": (vit, (*BOTH, "fused", "multi-head")),
    "gpt2": (gpt2, (*BOTH, "fused", "in one")),
    "llama": (llama, (*BOTH, "fused", "in one")),
    "llama, shared keys": (lambda: llama(SHARED), (*BOTH, "fused", "in one")),
}
"""How each is made, and its forms."""

KINDS = {"bert": "bert", "vit": "vit", "gpt2": "gpt2", "llama": "gpt2"}
"""What onnxruntime's optimizer is told that a model is."""


def with_random_vectors(model: nn.Module) -> None:
    """Biases and scales that a new model has as zeros and ones."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.eval()


def exported(opset: int, attention: str) -> Writer:
    def write(model: _First, x: Tensor, path: Path) -> None:
        model.model.set_attn_implementation(attention)
        with torch.no_grad():
            program = torch.onnx.export(
                model, (x,), dynamo=True, verbose=False, opset_version=opset
            )
        assert program is not None
        program.save(path)

    return write


def fused(multi: bool) -> Writer:
    def write(model: _First, x: Tensor, path: Path) -> None:
        name, _, _ = path.name.split(".")
        kind = KINDS[name.split(",")[0]]
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            exported(20, "eager")(model, x, plain)
            simplified(plain)
            options = FusionOptions(kind)
            options.use_multi_head_attention = multi
            made = optimizer.optimize_model(str(plain), kind, HEADS, WIDTH, options, opt_level=0)
        made.save_model_to_file(str(path))

    return write


def simplified(path: Path) -> None:
    """Writes attention as onnxruntime's optimizer knows it.

    Scores are divided where they are multiplied, and a mask that hides nothing is not added.
    """
    model = onnx.load(path)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = renamed.get(name, name)
        other = values.get(node.input[1]) if node.op_type in ("Add", "Mul") else None
        if other is None:
            continue
        maker = makers.get(node.input[0])
        if node.op_type == "Add" and other.ndim == 4 and not other.any():
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Mul" and not other.ndim and maker and maker.op_type == "MatMul":
            node.op_type, node.input[1] = "Div", f"{node.output[0]}.divisor"
            model.graph.initializer.append(numpy_helper.from_array(1 / other, node.input[1]))
    kept = [node for node in model.graph.node if node.output[0] not in renamed]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, path)


def in_one(model: _First, x: Tensor, path: Path) -> None:
    """Attention in one operator where onnxruntime's optimizer does not put it in one."""
    exported(20, "eager")(model, x, path)
    made = onnx.load(path)
    graph = made.graph
    config: Any = model.model.config
    makers = {name: node for node in graph.node for name in node.output}
    layers = {module_of(node): node for node in graph.node if node.op_type in ("Gemm", "MatMul")}

    def store(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    if isinstance(model.model, transformers.LlamaModel):
        angles = np.outer(
            np.arange(TOKENS), 10000.0 ** (-np.arange(0, WIDTH // HEADS, 2) * HEADS / WIDTH)
        )
        shared = [
            store("lengths", np.array([TOKENS - 1], np.int32)),
            store("length", np.array(TOKENS, np.int32)),
            store("cosines", np.cos(angles).astype(np.float32)),
            store("sines", np.sin(angles).astype(np.float32)),
        ]
    for at in range(LAYERS):
        if isinstance(model.model, transformers.LlamaModel):
            own = [layers[f"model.layers.{at}.self_attn.{name}_proj"] for name in "qkvo"]
            result = own.pop().input[0]
            read = [*(node.output[0] for node in own), "", "", *shared]
            how = {"kv_num_heads": config.num_key_value_heads, "do_rotary": 1}
            operator = "GroupQueryAttention"
        else:
            first, last = (layers[f"model.h.{at}.attn.{name}"] for name in ("c_attn", "c_proj"))
            result = makers[last.input[0]].input[0]
            read = [makers[first.input[0]].input[0], *first.input[1:3]]
            how, operator = {"unidirectional": 1}, "Attention"
        node = helper.make_node(
            operator,
            read,
            [result],
            f"attention.{at}",
            domain="com.microsoft",
            num_heads=HEADS,
            **how,
        )
        graph.node.insert(list(graph.node).index(makers[result]), node)
        graph.node.remove(makers[result])
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(made, path)


def module_of(node: onnx.NodeProto) -> str:
    """The torch module that a node is of."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return str(ast.literal_eval(entry.value)[-2])
    return ""


FORMS: Mapping[str, Writer] = {
    "plain": exported(20, "sdpa"),
    "opset23": exported(23, "sdpa"),
    "fused": fused(False),
    "multi-head": fused(True),
    "in one": in_one,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, (make, forms) in MODELS.items():
        torch.manual_seed(0)
        model, x = make()
        with_random_vectors(model)
        for form in forms:
            path = args.folder / f"{name}.{form}.onnx"
            FORMS[form](model, x, path)
            print(path.name, operators(onnx.load(path)), flush=True)


def operators(model: onnx.ModelProto) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in model.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


if __name__ == "__main__":
    main()

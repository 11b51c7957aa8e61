"""The architectures of the sweep, with random weights and small inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_KEPT: list[Any] = []  # A library's operators go when it does.
TIMM_COUNT = 220
_WEIGHTS = (100e6, 40e6)
"""Fewer of these have the first of a module, and all others."""


@dataclass(frozen=True)
class Architecture:
    """One model to export.

    Attributes:
        family: Where it comes from: `torchvision`, `hf`, `yolo` or `timm`.
        name: Its name there.
        make: Gives the model and its inputs.
        own: Writes it with the exporter that its package has, if that has one.
    """

    family: str
    name: str
    make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
    own: Callable[[Path], None] | None = None


def architectures(folder: Path) -> Iterator[Architecture]:
    """All of them; sizes of timm's are counted once and kept in a folder."""
    _declare_operators()
    yield from _torchvision()
    yield from _hugging_face()
    yield from _yolo()
    yield from _timm(folder)


def _declare_operators() -> None:
    """A CPU torch has no compiled part of torchvision; its operators need names and meaning."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT.append(library)
    if hasattr(torch.ops.torchvision, "nms"):
        return
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", lambda boxes, scores, _: torch.argsort(scores, descending=True)[:50], "CPU")
    import torchvision.extension
    import torchvision.ops._register_onnx_ops
    from torchvision.ops.roi_align import _roi_align

    library.impl("roi_align", _roi_align, "CPU")
    torchvision.extension._HAS_OPS = True
    torchvision.extension._has_ops = _yes


def _yes() -> bool:  # No lambda, for it is scripted.
    return True


def randomize(model: nn.Module) -> nn.Module:
    """Random numbers for all that starts as a constant, so that everything shows in the outputs."""
    torch.manual_seed(1)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point() or bool((value != value.reshape(-1)[:1]).any()):
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                value.normal_(std=0.2)
            elif isinstance(value, nn.Parameter):
                weight = not name.endswith("bias") and value.dim() < 2
                value.uniform_(0.5, 1.5) if weight else value.normal_(std=0.1)
    return model.eval()


def _torchvision() -> Iterator[Architecture]:
    image = {
        "alexnet": 224, "vgg11_bn": 224, "resnet18": 64, "resnext50_32x4d": 64,
        "wide_resnet50_2": 64, "squeezenet1_1": 64, "densenet121": 64, "mnasnet0_5": 64,
        "mobilenet_v2": 64, "mobilenet_v3_small": 64, "shufflenet_v2_x0_5": 64,
        "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_x_400mf": 64,
        "regnet_y_400mf": 64, "googlenet": 64, "inception_v3": 96, "convnext_tiny": 64,
        "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224, "vit_b_32": 224,
    }  # fmt: skip
    for name, size in image.items():
        yield Architecture("torchvision", name, lambda n=name, s=size: _image(n, s))  # type: ignore[misc]
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        yield Architecture("torchvision", name, lambda n=name: _segmentation(n))  # type: ignore[misc]
    detection = {
        "ssdlite320_mobilenet_v3_large": 320, "ssd300_vgg16": 300, "retinanet_resnet50_fpn": 128,
        "fcos_resnet50_fpn": 128, "fasterrcnn_mobilenet_v3_large_320_fpn": 128,
        "maskrcnn_resnet50_fpn": 96, "keypointrcnn_resnet50_fpn": 96,
    }  # fmt: skip
    for name, size in detection.items():
        yield Architecture("torchvision", name, lambda n=name, s=size: _detection(n, s))  # type: ignore[misc]
    video = {
        "r3d_18": (8, 64), "mc3_18": (8, 64), "r2plus1d_18": (8, 64), "s3d": (16, 64),
        "mvit_v1_b": (16, 224), "swin3d_t": (8, 64),
    }  # fmt: skip
    for name, (frames, size) in video.items():
        yield Architecture("torchvision", name, lambda n=name, f=frames, s=size: _video(n, f, s))  # type: ignore[misc]
    yield Architecture("torchvision", "raft_small", _flow)


class _First(nn.Module):
    """A model with tensors for outputs."""

    def __init__(self, model: nn.Module, **given: Any) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, *inputs: Tensor) -> Any:
        made = self.model(*inputs, **self.given)
        if isinstance(made, dict):
            made = tuple(made.values())
        if isinstance(made, (tuple, list)):
            made = [part for part in made if isinstance(part, Tensor)]
            return made[0] if len(made) == 1 else tuple(made)
        return made


def _image(name: str, size: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torchvision

    model = torchvision.models.get_model(name, weights=None)
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # No part of inference.
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
    if hasattr(model, "aux_logits"):
        model.aux_logits = False
    return model, (torch.rand(1, 3, size, size),)


def _segmentation(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torchvision

    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return _First(model), (torch.rand(1, 3, 64, 64),)


class _Detector(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Any:
        return tuple(self.model([image])[0].values())


def _detection(name: str, size: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torchvision

    fixed = name.startswith("ssd")
    given = {} if fixed else {"min_size": size, "max_size": 2 * size}
    if "rcnn" in name:
        given |= {"rpn_post_nms_top_n_test": 20, "rpn_pre_nms_top_n_test": 50}
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, **given)
    return _Detector(model), (torch.rand(3, size, size),)


def _video(name: str, frames: int, size: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torchvision

    model = torchvision.models.get_model(name, weights=None)
    if name == "s3d":
        model.avgpool = nn.AdaptiveAvgPool3d(1)  # So that it takes small frames.
    return model, (torch.rand(1, 3, frames, size, size),)


def _flow() -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torchvision

    model = _First(torchvision.models.get_model("raft_small", weights=None), num_flow_updates=2)
    return model, (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))


def _hugging_face() -> Iterator[Architecture]:
    for name in _HUGGING_FACE:
        yield Architecture("hf", name, lambda n=name: _hugging_face_model(n))  # type: ignore[misc]


_TEXT = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_WIDE = {**_TEXT, "intermediate_size": 96}
_SHARED = {**_WIDE, "num_key_value_heads": 2, "head_dim": 16}
_SEEN = {**{k: v for k, v in _WIDE.items() if k != "vocab_size"}, "image_size": 64}
_PAIR = {
    "vocab_size": 100, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
}  # fmt: skip
_T5 = {"vocab_size": 100, "d_model": 64, "d_kv": 16, "num_layers": 2, "num_heads": 4, "d_ff": 96}
_STAGES = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48], "decoder_hidden_size": 32,
    "num_attention_heads": [1, 2, 2, 4],
}  # fmt: skip
_SWIN = {
    "image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4
}  # fmt: skip
_HUGGING_FACE: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertModel", "BertConfig", _WIDE, "ids"),
    "distilbert": ("DistilBertModel", "DistilBertConfig", {
        "vocab_size": 100, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}, "ids"),
    "roberta": ("RobertaModel", "RobertaConfig", _WIDE, "ids"),
    "albert": ("AlbertModel", "AlbertConfig", {**_WIDE, "embedding_size": 32}, "ids"),
    "electra": ("ElectraModel", "ElectraConfig", {**_WIDE, "embedding_size": 32}, "ids"),
    "mobilebert": ("MobileBertModel", "MobileBertConfig", {
        **_WIDE, "embedding_size": 32, "intra_bottleneck_size": 32,
        "true_hidden_size": 32}, "ids"),
    "deberta": ("DebertaModel", "DebertaConfig", _WIDE, "ids"),
    "deberta_v2": ("DebertaV2Model", "DebertaV2Config", {
        **_WIDE, "relative_attention": True, "pos_att_type": "p2c|c2p",
        "max_relative_positions": 6, "max_position_embeddings": 16}, "ids"),
    "squeezebert": ("SqueezeBertModel", "SqueezeBertConfig", {
        **_WIDE, "embedding_size": 64}, "ids"),
    "gpt2": ("GPT2Model", "GPT2Config", {
        "vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4}, "ids"),
    "gpt_neo": ("GPTNeoModel", "GPTNeoConfig", {
        "vocab_size": 100, "hidden_size": 64, "num_layers": 2, "num_heads": 4,
        "attention_types": [[["global", "local"], 1]]}, "ids"),
    "opt": ("OPTModel", "OPTConfig", {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "ffn_dim": 96,
        "num_attention_heads": 4, "word_embed_proj_dim": 64}, "ids"),
    "bloom": ("BloomModel", "BloomConfig", {
        "vocab_size": 100, "hidden_size": 64, "n_layer": 2, "n_head": 4}, "ids"),
    "gpt_neox": ("GPTNeoXModel", "GPTNeoXConfig", _WIDE, "ids"),
    "llama": ("LlamaModel", "LlamaConfig", _SHARED, "ids"),
    "mistral": ("MistralModel", "MistralConfig", _SHARED, "ids"),
    "qwen2": ("Qwen2Model", "Qwen2Config", _SHARED, "ids"),
    "qwen3": ("Qwen3Model", "Qwen3Config", _SHARED, "ids"),
    "gemma": ("GemmaModel", "GemmaConfig", _SHARED, "ids"),
    "phi": ("PhiModel", "PhiConfig", _WIDE, "ids"),
    "t5_encoder": ("T5EncoderModel", "T5Config", _T5, "ids"),
    "t5": ("T5Model", "T5Config", _T5, "pair"),
    "bart": ("BartModel", "BartConfig", _PAIR, "pair"),
    "whisper_encoder": ("WhisperModel", "WhisperConfig", {
        **_PAIR, "num_mel_bins": 16, "max_source_positions": 20}, "mel"),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", {
        **_WIDE, "conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3],
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "num_feat_extract_layers": 2}, "sound"),
    "clip": ("CLIPModel", "CLIPConfig", {
        "text_config": {**_WIDE, "max_position_embeddings": 20},
        "vision_config": {**_SEEN, "patch_size": 16}, "projection_dim": 32}, "both"),
    "vit": ("ViTModel", "ViTConfig", {**_SEEN, "patch_size": 16}, "image"),
    "deit": ("DeiTModel", "DeiTConfig", {**_SEEN, "patch_size": 16}, "image"),
    "beit": ("BeitModel", "BeitConfig", {**_SEEN, "patch_size": 16}, "image"),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**_SEEN, "patch_size": 16}, "image"),
    "swin": ("SwinModel", "SwinConfig", _SWIN, "image"),
    "swinv2": ("Swinv2Model", "Swinv2Config", _SWIN, "image"),
    "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", _STAGES, "image"),
    "convnext": ("ConvNextModel", "ConvNextConfig", {
        "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "image_size": 64}, "image"),
    "resnet": ("ResNetModel", "ResNetConfig", {
        "embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1]}, "image"),
    "mobilevit": ("MobileViTModel", "MobileViTConfig", {
        "image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes":
        [8, 16, 24, 32, 40, 48, 96]}, "image"),
}  # fmt: skip


def _hugging_face_model(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import transformers

    kind, config, given, reads = _HUGGING_FACE[name]
    extra = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, config)(**given, **({} if "vision" in str(given) else extra))
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config)
    model = model.encoder if name == "whisper_encoder" else model
    ids, image = torch.randint(3, 100, (1, 12)), torch.rand(1, 3, 64, 64)
    inputs = {
        "ids": (ids,), "image": (image,), "pair": (ids,), "mel": (torch.rand(1, 16, 40),),
        "sound": (torch.rand(1, 400),), "both": (ids, image),
    }[reads]  # fmt: skip
    text = reads in ("ids", "pair") and name not in ("t5_encoder",)
    cached = "cache" in str(vars(config)) and text
    wrapped = _Text if reads == "pair" else _First
    return wrapped(model, return_dict=False, **({"use_cache": False} if cached else {})), inputs


class _Text(_First):
    """A model of an encoder and a decoder, both of which read the same."""

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(inputs[0], decoder_input_ids=inputs[0], **self.given)[0]


def _yolo() -> Iterator[Architecture]:
    for name in ("yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n"):
        yield Architecture(
            "yolo",
            name,
            lambda n=name: _yolo_model(n),  # type: ignore[misc]
            lambda path, n=name: _yolo_export(n, path),  # type: ignore[misc]
        )


def _yolo_model(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    from ultralytics import YOLO

    model = YOLO(f"{name}.yaml").model
    head = model.model[-1]
    head.export, head.format = True, "onnx"
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        model.eval()(image)  # It makes its anchors.
    return model, (image,)


def _yolo_export(name: str, path: Path) -> None:
    import shutil

    from ultralytics import YOLO

    torch.manual_seed(0)
    whole = YOLO(f"{name}.yaml")
    randomize(whole.model)
    whole.ckpt_path = str(path.with_suffix(".pt"))
    whole.model.pt_path = whole.ckpt_path
    made = whole.export(format="onnx", imgsz=96, simplify=True, verbose=False)
    shutil.move(str(made), path)


def _timm(folder: Path) -> Iterator[Architecture]:
    for name in _timm_names(folder):
        yield Architecture("timm", name, lambda n=name: _timm_model(n))  # type: ignore[misc]


def _timm_names(folder: Path) -> list[str]:
    """The smallest of each module of timm, then of each family in it, until there are enough."""
    known = folder / "timm_sizes.json"
    if not known.exists():
        known.write_text(json.dumps(_timm_sizes()))
    sizes = json.loads(known.read_text())
    ordered = sorted(sizes, key=lambda name: (sizes[name][1], name))
    taken: dict[str, int] = {}
    places = {}
    for name in ordered:
        module = sizes[name][0]
        family = re.match(r"[a-z]+(?:_[a-z]+(?=_|\d|$))?", name)
        keys = (module, f"{module}/{family.group() if family else name}")
        places[name] = [taken.get(key, 0) for key in keys]
        taken.update({key: taken.get(key, 0) + 1 for key in keys})
    light = [name for name in ordered if sizes[name][1] < _WEIGHTS[places[name][0] > 0]]
    order = sorted(light, key=lambda name: (places[name][0] > 0, places[name][1], sizes[name][1]))
    return order[:TIMM_COUNT]


def _timm_sizes() -> dict[str, tuple[str, int]]:
    import timm
    from timm.models import _registry

    found = {}
    for name in timm.list_models(pretrained=False, exclude_filters="test_*"):
        try:
            with torch.device("meta"):
                model = timm.create_model(name, pretrained=False)
        except Exception:
            continue
        module = _registry._model_to_module.get(name, "")
        found[name] = (module, sum(each.numel() for each in model.parameters()))
    return found


def _timm_model(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model of timm, at the smallest of a few sizes that it runs at."""
    import timm

    plain = timm.create_model(name, pretrained=False)
    config = plain.default_cfg
    size = config["input_size"][-1]
    for small in (64, 96, 128, 160):
        if small >= size:
            break
        try:
            fixed = bool(config.get("fixed_input_size"))
            model = timm.create_model(name, img_size=small) if fixed else plain
            image = torch.rand(1, 3, small, small)
            with torch.no_grad():
                model.eval()(image)
            return model, (image,)
        except Exception:
            continue
    return plain, (torch.rand(1, *config["input_size"]),)

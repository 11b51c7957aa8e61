"""Passes for Olive, which takes a model through a row of them as a configuration file says.

`UpscaleOptimize` is the main job, `UpscalePrune` is `prune` with samples from a data configuration.
Olive finds passes by a package configuration: `python -m onnx_upscale.olive` prints its own with
these two in it. Olive is an optional extra, and this module alone imports it.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union

from onnx_upscale.api import optimize
from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.choices import GOALS, PRUNED, STRENGTH
from onnx_upscale.errors import UpscaleError
from onnx_upscale.extras import require
from onnx_upscale.files import json_file, write_files
from onnx_upscale.optimizer.load.masks import as_document
from onnx_upscale.options import Options
from onnx_upscale.pruning.prune import prune
from onnx_upscale.report import Document
from onnx_upscale.result import Result

# Before anything of it is imported, so that one line says how to install it.
require("olive", "Olive", "olive", "onnx_upscale.olive")
from olive.data.config import DataConfig  # noqa: E402
from olive.model import ONNXModelHandler  # noqa: E402
from olive.model.utils import resolve_onnx_path  # noqa: E402
from olive.package_config import OlivePackageConfig  # noqa: E402
from olive.passes import Pass  # noqa: E402
from olive.passes.pass_config import PassConfigParam  # noqa: E402
from pydantic import ValidationError, field_validator  # noqa: E402

__all__ = ["RunError", "UpscaleOptimize", "UpscalePrune", "package_config"]

REPORT = "onnx-upscale.json"
"""The report, beside the model."""

# Types as Olive reads them; `X | Y` is not what it expects.
_Shares = Union[float, str]  # noqa: UP007
_Sizes = dict[str, list[int]]
_Data = Union[DataConfig, dict[str, Any]]  # noqa: UP007
_Masks = Union[dict[str, Any], str, Path]  # noqa: UP007


class RunError(UpscaleError, ValueError):
    """Input that does not do. Olive stops at a ValueError, and takes others for bad luck."""


class _Upscale(Pass):  # type: ignore[misc]  # It has no types.
    """What both passes have in common."""

    @classmethod
    def get_config_params(
        cls, accelerator_spec: Any, config: Any = None, disable_search: bool | None = False
    ) -> Any:
        """As every pass; what it has no option for is refused, which Olive would pass over."""
        known = cls._default_config(accelerator_spec)
        for name in config if isinstance(config, Mapping) else ():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; closest: {close[0]}" if close else f" (known: {', '.join(known)})"
                raise RunError(f"{cls.__name__}: unknown option '{name}'{hint}")
        with _stopping(cls.__name__):
            return super().get_config_params(accelerator_spec, config, disable_search)

    def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
        if not isinstance(model, ONNXModelHandler):
            kind = type(model).__name__
            raise RunError(f"{type(self).__name__}: expects an ONNX model, found a {kind}")
        if model.external_initializers_path or model.constant_inputs_path:
            raise RunError(
                f"{type(self).__name__}: weights of the model are given when it runs: run this "
                "pass before the one that takes them out"
            )
        with _stopping(type(self).__name__):
            result, report = self._made(model, config)
            path = Path(resolve_onnx_path(output_model_path))
            beside = path.with_name(REPORT)
            contents: dict[PathLike, Content] = {beside: json_file(report)}
            write_files(contents | result.stored.files(path, config.external_data))
        attributes = dict(model.model_attributes or {})
        attributes["additional_files"] = [str(beside)]
        return ONNXModelHandler(
            model_path=str(path.parent),
            onnx_file_name=path.name,
            inference_settings=model.inference_settings,
            use_ort_extensions=model.use_ort_extensions,
            model_attributes=attributes,
        )

    def _made(self, model: Any, config: Any) -> tuple[Result, Document]:
        raise NotImplementedError


class UpscaleOptimize(_Upscale):
    """The main job: removes masked channels.

    Masks are read when Olive reads its configuration, so that its cache knows them by what is in
    the file, and not by the file's name.
    """

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return {
            "masks": _param(_Masks, None, "A mask file or what is in one; none: only zeros."),
            "recover_data_config": _param(_Data, None, "Samples to repair readers with first."),
            **{
                name: _param(kind, getattr(Options, name), "As for onnx_upscale.optimize.")
                for name, kind in _OPTIONS.items()
            },
            **_WRITING,
        }

    @classmethod
    def _validators(cls) -> dict[str, Callable[..., Any]]:
        return {"read_masks": field_validator("masks", mode="before")(_read_masks)}

    def _made(self, model: Any, config: Any) -> tuple[Result, Document]:
        options = {name: getattr(config, name) for name in _OPTIONS}
        options["inputs"] = _sizes(config.inputs)
        options["verify_at"] = config.verify_at or ()
        if config.recover_data_config is not None:
            options["recover"] = _samples(config.recover_data_config, model)
        result = optimize(model.model_path, config.masks, **options)
        return result, result.report


class UpscalePrune(_Upscale):
    """Pruning to a goal, with samples from a data configuration and no masks."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return {
            "data_config": PassConfigParam(
                type_=_Data, required=True, description="Samples of the model's inputs."
            ),
            **{name: _param(_Shares, None, "A goal, as for onnx_upscale.prune.") for name in GOALS},
            **{
                name: _param(kind, default, "As for onnx_upscale.prune.")
                for name, (kind, default) in _PRUNING.items()
            },
            **_WRITING,
        }

    def _made(self, model: Any, config: Any) -> tuple[Result, Document]:
        options = {name: getattr(config, name) for name in (*GOALS, *_PRUNING)}
        options["inputs"] = _sizes(config.inputs)
        options["layers"] = config.layers or ()
        samples = _samples(config.data_config, model)
        pruned = prune(model.model_path, samples, **options)
        return pruned.result, pruned.report


def _param(kind: Any, default: Any, description: str) -> PassConfigParam:
    return PassConfigParam(type_=kind, default_value=default, description=description)


_OPTIONS: dict[str, Any] = {
    "strategy": str,
    "target": str,
    "tune": bool,
    "tune_seconds": float,
    "verify": bool,
    "samples": int,
    "seed": int,
    "rtol": float,
    "atol": float,
    "inputs": _Sizes,
    "verify_at": list[str],
}
_PRUNING: dict[str, tuple[Any, Any]] = {
    "evaluate": (str, None),
    "target": (str, "cpu"),
    "mode": (str, "joint"),
    "layers": (list[str], None),
    "count": (int, PRUNED),
    "strength": (float, STRENGTH),
    "seed": (int, 0),
    "inputs": (_Sizes, None),
    "runs": (int, 30),
}
_WRITING = {
    "external_data": _param(str, "auto", "Where weights go, as for `Result.save`."),
}


def _sizes(given: Mapping[str, Any] | None) -> dict[str, tuple[int, ...]] | None:
    """Shapes of inputs; JSON has lists."""
    return None if given is None else {name: tuple(sizes) for name, sizes in given.items()}


def _read_masks(cls: Any, masks: Any) -> Any:
    """A validator of pydantic: masks as the dictionary that they are in their file."""
    return as_document(masks) if isinstance(masks, str | Path | Mapping) else masks


def _samples(config: Any, model: Any) -> Any:
    """What Olive's data configuration gives, as a CalibrationDataReader of onnxruntime."""
    read = config if isinstance(config, DataConfig) else DataConfig(**config)
    container = read.to_data_container()
    return container.create_calibration_dataloader(
        model_path=model.model_path, io_config=model.io_config
    )


@contextlib.contextmanager
def _stopping(where: str) -> Iterator[None]:
    """Lets Olive stop, and say what is wrong, where it would try something else."""
    try:
        yield
    except RunError:
        raise
    except UpscaleError as error:
        raise RunError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        found = f", found {first['input']!r}" if first["type"] != "missing" else ""
        raise RunError(f"{where}: option '{first['loc'][0]}': {first['msg']}{found}") from error


@functools.cache
def package_config() -> dict[str, Any]:
    """Olive's own package configuration, with the passes of this module in it.

    Returns:
        What `olive run --package-config FILE` and `olive.run(..., package_config=...)` take.
    """
    own: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text())
    kinds = ("supported_providers", "supported_accelerators", "supported_precisions")
    for name, dataset in (
        ("UpscaleOptimize", "dataset_optional"),
        ("UpscalePrune", "dataset_required"),
    ):
        own["passes"][name] = {
            "module_path": f"onnx_upscale.olive.{name}",
            "dataset": dataset,
            "module_dependencies": ["onnx-upscale"],
            **{kind: ["*"] for kind in kinds},
        }
    return own


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=2))

"""Running a model in onnxruntime, which is imported when a model is to run."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnx_upscale.errors import VerifySetupError
from onnx_upscale.mapped import Place, array_of, place_of, refer, size_of
from onnx_upscale.protobuf import copy_fields
from onnx_upscale.running import parts
from onnx_upscale.running.parts import InParts, NoTensorError, mapped_bytes, names_read, parts_of
from onnx_upscale.storage import Stored

if TYPE_CHECKING:
    import onnxruntime

THREADS = "ONNX_UPSCALE_THREADS"
"""The environment variable that says how many threads sessions have that leave it open."""
_ONLY_FATAL = 4
_LENT = 1 << 20
"""Bytes from which on weights of a model too large for one file stay where they are in memory."""
_CPU = "CPUExecutionProvider"
# Where the values that a provider works on live; TensorRT's live where CUDA's do.
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


class Session:
    """A model loaded into onnxruntime.

    Args:
        model: The model, or the path of its file.
        threads: Threads inside an operator; 0 leaves it to the environment, or to onnxruntime.
        providers: onnxruntime's execution providers, the preferred one first.
        profile: Where onnxruntime's profile goes, as the start of a path; None for no profile.
        optimized: Whether onnxruntime may rewrite the model first, as it does by default.
        without: Names of onnxruntime's optimizers that it must not use.
        whole: Whether a model with many mapped weights is loaded whole all the same; otherwise it
            runs part by part, but for where it is timed.
        pack: Whether onnxruntime lays weights out anew for its kernels, beside what they were: that
            takes as much memory again, and pays only in a model that runs often.

    Raises:
        VerifySetupError: onnxruntime does not load the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        threads: int = 0,
        providers: Sequence[str] = (_CPU,),
        profile: str | None = None,
        optimized: bool = True,
        without: Sequence[str] = (),
        whole: bool = False,
        pack: bool = True,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = threads or int(os.environ.get(THREADS, 0))
        # The threads of several sessions would spin against each other.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not pack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        self._load: Callable[[], onnxruntime.InferenceSession] | None = functools.partial(
            _load, model, options, providers, without
        )
        self._in_parts: InParts | None = None
        apart = profile is None and not whole
        if apart and isinstance(model, onnx.ModelProto) and mapped_bytes(model) > parts.MOST:
            cut = parts_of(model, parts.MOST)
            if cut is not None:

                def again(part: onnx.ModelProto) -> Session:
                    given = (threads, providers, None, optimized, without)
                    return Session(part, *given, whole=True, pack=False)

                self._in_parts = InParts(model, cut, again)
                self._outputs = [output.name for output in model.graph.output]
                return
        self._outputs = [output.name for output in self._session.get_outputs()]

    @functools.cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        assert self._load is not None
        session = self._load()
        self._load = None  # The model goes with it.
        return session

    @functools.cached_property
    def output_types(self) -> dict[str, np.dtype[Any]]:
        """The element type of each output that is a tensor of a type ONNX knows."""
        if self._in_parts is not None:
            try:
                return self._in_parts.output_types
            except NoTensorError:
                self._in_parts = None
        kinds = {
            output.name: re.fullmatch(r"tensor\((\w+)\)", output.type)
            for output in self._session.get_outputs()
        }
        return {
            name: helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind[1].upper()))
            for name, kind in kinds.items()
            if kind and kind[1].upper() in TensorProto.DataType.keys()  # noqa: SIM118
        }

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are in use, which may be fewer than were asked for."""
        return tuple(self._session.get_providers())

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], wanted: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Runs the model.

        Args:
            inputs: A value for each input.
            wanted: Names of the outputs to give; None for all.

        Returns:
            Each of these outputs. One that is a sequence or a map gives each of its elements a name
            of its own, such as `scores[0]`; an optional that is empty gives nothing.

        Raises:
            VerifySetupError: onnxruntime does not run the model on these inputs, or makes something
                else of them.
        """
        names = self._outputs if wanted is None else list(wanted)
        if self._in_parts is not None:
            try:
                given = self._in_parts.run(inputs)
                return {name: given[name] for name in names}
            except NoTensorError:
                self._in_parts = None
        if not names:  # onnxruntime takes that for all.
            return {}
        values = self._run(names, inputs)
        return {
            part: each
            for name, value in zip(names, values, strict=True)
            for part, each in _tensors(name, value)
        }

    def _run(self, names: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        try:
            values: list[Any] = self._session.run(names, dict(inputs))
        except Exception as error:  # It raises classes of its own that share no base.
            raise VerifySetupError(f"onnxruntime cannot run it: {_first_line(error)}") from None
        return values

    def task(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Callable[[], object]:
        """The model on these inputs as something to be called again and again, and timed.

        On a GPU the inputs are moved there now, and the outputs stay there, so that copies between
        the host and the GPU are no part of what a call takes; a call ends when its outputs are
        there.

        Args:
            inputs: A value for each input.

        Returns:
            One run of the model.

        Raises:
            VerifySetupError: onnxruntime does not run the model on these inputs.
        """
        import onnxruntime

        self._run(self._outputs, inputs)
        device = _DEVICES.get(self.providers[0])
        if device is None:
            return functools.partial(self._session.run, self._outputs, dict(inputs))
        binding = self._session.io_binding()
        for name, value in inputs.items():
            placed = onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0)
            binding.bind_ortvalue_input(name, placed)
        for name in self._outputs:
            binding.bind_output(name, device)

        def run() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def end_profile(self) -> str:
        """Ends the profile; gives the path of its file."""
        path: str = self._session.end_profiling()
        return path


def _tensors(name: str, value: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The tensors that an output is made of, each with a name."""
    if isinstance(value, (np.ndarray, np.generic, int, float, str)):
        yield name, np.asarray(value)
    elif isinstance(value, (list, dict)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _tensors(f"{name}[{key}]", part)
    elif value is not None:
        kind = type(value).__name__
        raise VerifySetupError(f"output '{name}' is a {kind}, which cannot be compared")


def _load(
    model: onnx.ModelProto | str | os.PathLike[str],
    options: onnxruntime.SessionOptions,
    providers: Sequence[str],
    without: Sequence[str],
) -> onnxruntime.InferenceSession:
    import onnxruntime

    try:
        if isinstance(model, onnx.ModelProto):
            model, lent = _lending(model)
            arrays = [array_of(tensor) for tensor in lent]
            values = list(map(onnxruntime.OrtValue.ortvalue_from_numpy, arrays))
            options.add_external_initializers([tensor.name for tensor in lent], values)
        # Without the fallback, which prints to standard output and hides what went wrong.
        return onnxruntime.InferenceSession(
            model.SerializeToString() if isinstance(model, onnx.ModelProto) else model,
            options,
            providers=list(providers),
            enable_fallback=False,
            disabled_optimizers=list(without),
        )
    except Exception as error:  # onnxruntime raises classes of its own that share no base.
        raise VerifySetupError(f"onnxruntime cannot load it: {_first_line(error)}") from None


def _lending(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """A model as it can be handed over as bytes, and the weights that are handed over beside it."""
    # What nobody reads onnxruntime drops at once, and then misses what it is handed for it.
    read = {name for node in model.graph.node for name in names_read(node)}
    read.update(value.name for value in model.graph.output)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if not Stored(model).is_large:
        return model, [tensor for tensor in tensors if place_of(tensor) is not None]
    light = onnx.ModelProto()
    copy_fields(model, light, leave={"graph"})
    copy_fields(model.graph, light.graph, leave={"initializer"})
    lent = []
    for tensor in tensors:
        if place_of(tensor) is None and size_of(tensor) < _LENT:
            light.graph.initializer.append(tensor)
            continue
        named = light.graph.initializer.add()
        copy_fields(tensor, named, leave={"raw_data", "data_location", "external_data"})
        refer(named, Place("lent", 0, size_of(tensor)))
        lent.append(tensor)
    return light, lent


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

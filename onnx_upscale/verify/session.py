"""Running a model in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from onnx_upscale.errors import VerifySetupError

_ONLY_FATAL = 4


class Session:
    """A model loaded into onnxruntime's CPU provider.

    Args:
        model: The model.
        threads: Threads inside an operator; 0 leaves it to onnxruntime.

    Raises:
        VerifySetupError: onnxruntime does not load the model.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own that share no base.
            raise VerifySetupError(f"onnxruntime cannot load it: {_first_line(error)}") from None
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Runs the model.

        Args:
            inputs: A value for each input.

        Returns:
            Each output that is a tensor.

        Raises:
            VerifySetupError: onnxruntime does not run the model on these inputs.
        """
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # As above.
            raise VerifySetupError(f"onnxruntime cannot run it: {_first_line(error)}") from None
        return {
            name: value
            for name, value in zip(self._outputs, values, strict=True)
            if isinstance(value, np.ndarray)
        }


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

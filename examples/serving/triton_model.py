"""What Triton's Python backend calls: requests that Triton put together go through onnxruntime in one run.

Arrays come and go by DLPack: the backend's own conversion is built for NumPy 1, and with NumPy 2 answers are empty.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        place = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(place))

    def execute(self, requests: list) -> list:
        parts = {
            each.name: [np.from_dlpack(triton.get_input_tensor_by_name(request, each.name)) for request in requests]
            for each in self.session.get_inputs()
        }
        outputs = self.session.run(None, {name: np.concatenate(arrays) for name, arrays in parts.items()})
        names = [each.name for each in self.session.get_outputs()]
        ends = np.cumsum([len(array) for array in next(iter(parts.values()))])[:-1]
        shares = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [
            triton.InferenceResponse([triton.Tensor.from_dlpack(*pair) for pair in zip(names, share, strict=True)])
            for share in shares
        ]

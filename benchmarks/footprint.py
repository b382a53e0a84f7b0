"""What the client adds to a camera program: memory over bare onnxruntime, import time, size of the wheel.

    .venv/bin/python benchmarks/footprint.py [--models DIR] [--json FILE]

Each figure is the median of five fresh processes. The client is connected to a real broker and has its local session
open; the bare program has the same session open. Without --models, a small model built here is used.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from _report import Figure, parser, report
from onnx import TensorProto, helper, numpy_helper

from splitbus_demo.broker import start_broker

RUNS = 5

RSS = "print(int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) / 1024)"

BARE = """
import onnxruntime as ort
session = ort.InferenceSession({model!r})
"""

CLIENT = """
import time
from splitbus_device import InferenceSession
session = InferenceSession({model!r}, broker={broker!r}, device="bench", store={store!r})
session._uplink._data.wait_connected(5)
session._uplink._control.wait_connected(5)
time.sleep(1.5)
"""

IMPORT = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"


def main() -> None:
    options = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder, start_broker() as broker:
        model = _model(options.models, Path(folder))
        names = {"model": str(model), "broker": f"mqtt://{broker.host}:{broker.port}", "store": folder}
        bare = _median(BARE.format(**names) + RSS)
        client = _median(CLIENT.format(**names) + RSS + "\nsession.close()")
        import_ort = _median(IMPORT.format(module="onnxruntime"))
        import_client = _median(IMPORT.format(module="splitbus_device"))
        wheel = _wheel_bytes(Path(folder))
    figures = [
        Figure(
            "footprint.client_rss_mb", client - bare, "MB", f"{client:.1f} connected, {bare:.1f} bare, {model.name}"
        ),
        Figure(
            "footprint.import_s", import_client - import_ort, "s", f"{import_client:.2f}, onnxruntime {import_ort:.2f}"
        ),
        Figure("footprint.wheel_kb", wheel / 1024, "kB", "all components"),
    ]
    report("What the client adds", figures, options.json)


def _median(code: str) -> float:
    values = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        values.append(float(done.stdout.split()[-1]))
    return statistics.median(values)


def _wheel_bytes(folder: Path) -> int:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("splitbus-*.whl")).stat().st_size


def _model(models: Path | None, folder: Path) -> Path:
    if models is not None:
        return max(models.glob("*.onnx"), key=lambda path: path.stat().st_size)
    weight = numpy_helper.from_array(np.ones((256, 256), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256])],
        [weight],
    )
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


if __name__ == "__main__":
    main()

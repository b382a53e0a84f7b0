"""A camera whose scene hardly changes: python camera_still.py [MODEL] [--broker URL] [--reuse SECONDS] ..."""

import argparse

from small_model import pictures, small_model

from splitbus_device import InferenceSession

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", help="an ONNX file; a small one is made when absent")
parser.add_argument("--broker", help="mqtt://HOST or mqtts://HOST; without one, every frame is answered here")
parser.add_argument("--site", default="home")
parser.add_argument("--device", help="this camera's id; the host name when absent")
parser.add_argument("--reuse", type=float, default=1.0, help="seconds for which an answer may be given again")
parser.add_argument("--frames", type=int, default=20)
options = parser.parse_args()

with InferenceSession(
    options.model or small_model(),
    broker=options.broker,
    site=options.site,
    device=options.device,
    reuse=options.reuse,
) as session:
    (scene,) = pictures(session.get_inputs()[0].shape, 1)
    for answer in session.stream([scene] * options.frames, live=False):
        how = f"reused after {answer.age_ms:.0f} ms" if answer.reused else f"{sum(answer.cut_bytes)} bytes sent"
        print(f"{int(answer.outputs[0].argmax())}  {'>'.join(answer.route)}  {how}")

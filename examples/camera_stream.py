"""A camera's loop that is told how each frame was answered: python camera_stream.py [MODEL] [--broker URL] ..."""

import argparse

from small_model import pictures, small_model

from splitbus_device import InferenceSession

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", help="an ONNX file; a small one is made when absent")
parser.add_argument("--broker", help="mqtt://HOST or mqtts://HOST; without one, every frame is answered here")
parser.add_argument("--site", default="home")
parser.add_argument("--device", help="this camera's id; the host name when absent")
parser.add_argument("--deadline", type=float, default=0.5, help="seconds")
parser.add_argument("--frames", type=int, default=20)
options = parser.parse_args()

with InferenceSession(
    options.model or small_model(),
    broker=options.broker,
    site=options.site,
    device=options.device,
    deadline=options.deadline,
) as session:
    camera = pictures(session.get_inputs()[0].shape, options.frames)
    for answer in session.stream(camera, live=False):
        best = int(answer.outputs[0].argmax())
        print(f"{best}  {'>'.join(answer.route)}  {answer.total_ms:.1f} ms  plan {answer.plan}  {answer.reason}")

"""A camera whose frames only workers can read: python camera_sealed.py [MODEL] --broker URL ...

On the gateway, `splitbus seal add edge1 --worker` and `splitbus seal add front-door` print the keys.
"""

import argparse

from small_model import pictures, small_model

from splitbus_device import InferenceSession

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", help="an ONNX file; a small one is made when absent")
parser.add_argument("--broker", help="mqtt://HOST or mqtts://HOST; without one, every frame is answered here")
parser.add_argument("--site", default="home")
parser.add_argument("--device", help="this camera's id, by which the gateway lists its key")
parser.add_argument("--gateway-key", help="the gateway's public key, or the file signing.pub")
parser.add_argument("--seal-key", help="a file with this camera's own key, which nobody else may read")
parser.add_argument("--frames", type=int, default=100)
options = parser.parse_args()

with InferenceSession(
    options.model or small_model(),
    broker=options.broker,
    site=options.site,
    device=options.device,
    gateway_key=options.gateway_key,
    seal_key=options.seal_key,
) as session:
    camera = pictures(session.get_inputs()[0].shape, options.frames)
    for answer in session.stream(camera, live=False):
        print(f"{int(answer.outputs[0].argmax())}  {'>'.join(answer.route)}  {answer.reason}")

"""A camera whose frames survive a power cut: python camera_durable.py [MODEL] [--journal DIR] [--broker URL] ...

Run it, pull the plug (or kill -9) in the middle, run it again: results.txt gets every frame once.
"""

import argparse
from pathlib import Path

from small_model import pictures, small_model

from splitbus_device import Answer, Durable, InferenceSession

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", help="an ONNX file; a small one is made when absent")
parser.add_argument("--journal", type=Path, default=Path("journal"), help="folder for frames that are not done with")
parser.add_argument("--results", type=Path, default=Path("results.txt"))
parser.add_argument("--fsync", choices=["always", "interval", "never"], default="always")
parser.add_argument("--broker", help="mqtt://HOST or mqtts://HOST; without one, every frame is answered here")
parser.add_argument("--site", default="home")
parser.add_argument("--device", help="this camera's id; the host name when absent")
parser.add_argument("--frames", type=int, default=20)
options = parser.parse_args()


def keep(answer: Answer) -> None:
    """Write the result down; only one that says it is repeated can be there already."""
    known = options.results.read_text() if options.results.exists() else ""
    if answer.repeated and f"{answer.key} " in known:
        return
    with options.results.open("a") as file:
        file.write(f"{answer.key} {int(answer.outputs[0].argmax())}\n")


with InferenceSession(
    options.model or small_model(),
    broker=options.broker,
    site=options.site,
    device=options.device,
    durable=Durable(folder=options.journal, fsync=options.fsync),
) as session:
    for answer in session.resumed():  # what the last run left
        keep(answer)
        print(f"{answer.key} resumed")
    camera = pictures(session.get_inputs()[0].shape, options.frames)
    for answer in session.stream(((f"picture-{n}", p) for n, p in enumerate(camera)), keyed=True):
        keep(answer)
        print(f"{answer.key} {'>'.join(answer.route)}")

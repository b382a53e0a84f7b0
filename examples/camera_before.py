"""A camera's program on onnxruntime alone: python camera_before.py [MODEL]."""

import sys

from onnxruntime import InferenceSession
from small_model import pictures, small_model

session = InferenceSession(sys.argv[1] if len(sys.argv) > 1 else small_model())
image = session.get_inputs()[0]
for number, picture in enumerate(pictures(image.shape)):
    scores = session.run(None, {image.name: picture})[0]
    print(number, int(scores.argmax()))

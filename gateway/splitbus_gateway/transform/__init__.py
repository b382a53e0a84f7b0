"""The transform codec: a tensor at a cut as few, small integers, calibrated on activations without training.

Sensitivity-weighted Karhunen-Loeve transform over channels, DCT over space, one step for every coefficient. The
transform stands in the slices as ONNX nodes; splitbus_schemas.entropy rounds, and makes bytes of the integers.
"""

from splitbus_gateway.transform.calibrate import MIN_SAMPLES, Calibrated, calibrate, rebuilt
from splitbus_gateway.transform.layout import objection
from splitbus_gateway.transform.nodes import node_coder, wire_name
from splitbus_gateway.transform.quantise import SETTINGS, Transform

__all__ = [
    "MIN_SAMPLES",
    "SETTINGS",
    "Calibrated",
    "Transform",
    "calibrate",
    "node_coder",
    "objection",
    "rebuilt",
    "wire_name",
]

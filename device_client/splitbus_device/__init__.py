"""The drop-in client: `InferenceSession` in place of onnxruntime's, answered by the bus or by the local model."""

from splitbus_device.answer import Answer
from splitbus_device.durable import Durable, JournalState
from splitbus_device.reuse import Reuse
from splitbus_device.session import InferenceSession

__all__ = ["Answer", "Durable", "InferenceSession", "JournalState", "Reuse"]

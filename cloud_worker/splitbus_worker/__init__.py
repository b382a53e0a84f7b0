"""A worker, at the edge or in the cloud: runs the slices that packets name, passes on or replies."""

from splitbus_worker.settings import WorkerConfig, load_config
from splitbus_worker.worker import Worker

__all__ = ["Worker", "WorkerConfig", "load_config"]

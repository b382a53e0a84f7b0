"""The gateway: model registry and slicer, planner and controller, blob service."""

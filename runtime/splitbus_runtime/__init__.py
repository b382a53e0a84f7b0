"""What every node shares: the one MQTT module, the one onnxruntime module, the slice store, link estimates."""

"""The gateway's registry as its settings have it: the same for the daemon and for `splitbus model`."""

from __future__ import annotations

from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.registry import Registry
from splitbus_schemas.errors import BlobError, ConfigError


def open_gateway_registry(config: GatewayConfig) -> Registry:
    """The registry in the gateway's state folder. Raises ConfigError."""
    try:
        return Registry(
            config.state_dir,
            store_limit_bytes=config.blobs.store_mb * 2**20,
            max_models=config.models.max_models,
            samples=config.models.samples,
            max_input_ratio=config.models.max_input_ratio,
        )
    except (OSError, BlobError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"state folder {config.state_dir} cannot be used: {why}; name the gateway's with --state-dir or --config"
        ) from error

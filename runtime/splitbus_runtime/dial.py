"""How a node connects: MQTT by its settings, or whatever a test gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from splitbus_runtime.bus import Bus, Will
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings

Dial: TypeAlias = Callable[[str, Will | None], Bus]
"""Client id and last will to a connection."""


def dial_broker(broker: BrokerSettings) -> Callable[[str, Will | None], MqttBus]:
    """Connections to `broker`. Raises ConfigError for a password or certificate that cannot be read."""
    password, tls = broker.read_password(), broker.ssl_context()

    def dial(client_id: str, will: Will | None) -> MqttBus:
        return MqttBus(
            broker.host,
            broker.port,
            client_id=client_id,
            username=broker.user,
            password=password,
            tls=tls,
            will=will,
        )

    return dial

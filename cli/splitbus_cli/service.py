"""The gateway as a service: two connections, the daemon between them, and what systemd is told."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from splitbus_cli.registry import open_gateway_registry
from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.registry import Registry
from splitbus_runtime.agent import new_boot
from splitbus_runtime.bus import Will
from splitbus_runtime.dial import dial_broker
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.service import serve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayService:
    """A running gateway as `serve` sees it."""

    daemon: GatewayDaemon
    registry: Registry
    control: MqttBus
    data: MqttBus

    @property
    def ready(self) -> bool:
        return self.control.connected and self.data.connected and self.daemon.answered

    @property
    def healthy(self) -> bool:
        return self.daemon.healthy()

    @property
    def status(self) -> str:
        config = self.daemon.config
        address = config.broker.address
        if not self.ready:
            problem = self.control.problem or self.data.problem or "connecting"
            return f"{config.node} waits for the broker at {address}: {problem}"
        names = [record.name for record in self.registry.list()]
        models = f"models {', '.join(names)}" if names else "no models yet: splitbus model add NAME FILE"
        how = f"{self.daemon.verdict}; broker answered {self._echo()} ago"
        return f"{config.node} serves site {config.site} at {address}, {self.daemon.role}, {models}; {how}"

    def _echo(self) -> str:
        return f"{self.daemon.echo_age_s:.1f} s"


def run_gateway(config: GatewayConfig) -> None:
    """Serve until a signal. Raises ConfigError for settings that cannot be used, ModelError for models that cannot."""
    registry = open_gateway_registry(config)
    boot = new_boot()
    will = Will(*GatewayDaemon.lost(config.site, config.node, boot))
    with ExitStack() as stack:
        dial = dial_broker(config.broker)
        control = dial(f"{config.node}-control", will)
        stack.callback(control.close)
        data = dial(f"{config.node}-data", None)
        stack.callback(data.close)
        daemon = stack.enter_context(GatewayDaemon(config, control, data, registry, boot=boot))
        serve(GatewayService(daemon, registry, control, data), reload=_tell_reload)
    log.info("%s stopped", config.node)


def _tell_reload() -> None:
    log.info("SIGHUP: added and removed models are noticed every second anyway; other settings need a restart")

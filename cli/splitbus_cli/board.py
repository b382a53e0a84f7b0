"""What `splitbus top` and `splitbus plan` know of a site, built from its retained and passing messages. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from splitbus_runtime.bus import Delivery
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.ids import model_key

MAX_ALERTS: Final = 8

WATCHED: Final = (
    topics.STATUS,
    topics.CAPS,
    topics.STATS,
    topics.ALERT,
    topics.LINK,
    topics.PLAN_STATE,
    topics.STREAM,
    topics.PLAN,
    topics.DECISION,
    topics.MODEL,
    topics.PIN,
)

StreamKey: TypeAlias = tuple[str, str]
"""Device, and the model's key."""


def filters(site: str, kinds: tuple[topics.Topic, ...] = WATCHED) -> list[str]:
    """The filters of these kinds of topics at a site."""
    return [kind.at(site, **dict.fromkeys(kind.fields, "+")) for kind in kinds]


@dataclass
class Board:
    """The newest message of each topic, by what it is about; an empty one removes it."""

    status: dict[str, m.NodeStatus] = field(default_factory=dict)
    caps: dict[str, m.NodeCaps] = field(default_factory=dict)
    stats: dict[str, m.NodeStats] = field(default_factory=dict)
    links: dict[tuple[str, str], m.LinkReport] = field(default_factory=dict)
    states: dict[StreamKey, m.PlanState] = field(default_factory=dict)
    streams: dict[StreamKey, m.StreamStats] = field(default_factory=dict)
    plans: dict[StreamKey, m.Plan] = field(default_factory=dict)
    decisions: dict[StreamKey, m.Decision] = field(default_factory=dict)
    pins: dict[StreamKey, m.Pin] = field(default_factory=dict)
    cards: dict[str, m.ModelCard] = field(default_factory=dict)
    alerts: deque[m.Alert] = field(default_factory=lambda: deque(maxlen=MAX_ALERTS))
    broken: int = 0
    """Messages that could not be read."""

    def apply(self, delivery: Delivery) -> None:
        """Take a message; one that breaks the contract is counted."""
        try:
            kind, fields = topics.parse_topic(delivery.topic)
            if kind.message is None:
                return
            message = m.decode_message(kind.message, delivery.payload) if delivery.payload else None
        except DecodeError:
            self.broken += 1
            return
        if isinstance(message, m.Alert):
            self.alerts.append(message)
            return
        table = self._tables.get(kind.name)
        if table is not None:
            values = [fields[name] for name in kind.fields]
            key = values[0] if len(values) == 1 else tuple(values)
            if message is None:
                table.pop(key, None)
            else:
                table[key] = message

    @property
    def _tables(self) -> dict[str, dict[Any, Any]]:
        return {
            topics.STATUS.name: self.status,
            topics.CAPS.name: self.caps,
            topics.STATS.name: self.stats,
            topics.LINK.name: self.links,
            topics.PLAN_STATE.name: self.states,
            topics.STREAM.name: self.streams,
            topics.PLAN.name: self.plans,
            topics.DECISION.name: self.decisions,
            topics.PIN.name: self.pins,
            topics.MODEL.name: self.cards,
        }

    def model_name(self, key: str) -> str:
        """The name under which a model is registered, or its key."""
        return next((name for name, card in self.cards.items() if model_key(card.model) == key), key)

    def find_model(self, name: str, site: str) -> m.ModelCard:
        """The card of a model given by name, key or hash. Raises ConfigError naming those that are there."""
        for card in self.cards.values():
            if name in (card.name, card.model, model_key(card.model)):
                return card
        known = f"known are {', '.join(sorted(self.cards))}" if self.cards else "none is: see `splitbus model add`"
        raise ConfigError(f"model {name!r} is not registered at site {site}: {known}")

    def stream_keys(self) -> list[StreamKey]:
        """Devices and models of which anything is known."""
        return sorted({*self.plans, *self.states, *self.streams, *self.pins})

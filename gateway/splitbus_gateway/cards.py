"""The cards of registered models on the bus: the leader's registry and no other; who stands by says what it lacks."""

from __future__ import annotations

from pathlib import Path

from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import Signer
from splitbus_runtime.bus import Bus
from splitbus_runtime.tally_file import read_tally, write_tally
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import ModelCard
from splitbus_schemas.topics import MODEL


class Cards:
    """The model cards of a site. Belongs to one thread."""

    def __init__(self, bus: Bus, registry: Registry, signer: Signer, *, site: str, file: Path) -> None:
        self._bus, self._registry, self._signer, self._site, self._file = bus, registry, signer, site, file
        self.had = set(read_tally(file))
        """Keys of the models that were ever registered here: what becomes of them is ours to say."""
        self._announced: dict[str, bytes] = {}
        """As said by this process since it leads."""
        self._there: dict[str, str | None] = {}
        """What others said: the model by the card's name, None where it cannot be read."""

    def begin(self) -> None:
        """Say all cards (again): we lead now, or the broker may have forgotten them."""
        self._announced.clear()

    def note(self, topic: str, name: str, payload: bytes) -> None:
        """A card as it came from the bus."""
        if self._announced.get(name, b"") == payload:
            return
        self._announced.pop(name, None)  # somebody wrote over ours: it is said again
        if not payload:
            self._there.pop(name, None)
            return
        try:
            self._there[name] = ModelCard.from_json(self._signer.open(topic, payload)).model
        except DecodeError:
            self._there[name] = None

    @property
    def lacking(self) -> tuple[str, ...]:
        """Names of models on the bus that are not registered here."""
        known = {record.model for record in self._registry.list()}
        return tuple(name for name, model in sorted(self._there.items()) if model is not None and model not in known)

    def announce(self) -> bool:
        """Put the cards right; whether any had to be. Models that another gateway has, and we never had, keep theirs.

        Raises ConfigError when what we had cannot be written down.
        """
        records = self._registry.list()
        self._remember({model_key(record.model) for record in records})
        wanted = {record.name: self._sealed(record.card) for record in records}
        foreign = {name for name, model in self._there.items() if model and model_key(model) not in self.had}
        changed = False
        for name in sorted({*wanted, *self._announced, *(self._there.keys() - foreign)}):
            payload = wanted.get(name, b"")
            if self._announced.get(name, b"" if name not in self._there else None) == payload:
                continue
            changed = True
            if not self._bus.publish(self._topic(name), payload, qos=MODEL.qos, retain=MODEL.retain):
                continue
            self._there.pop(name, None)
            if payload:
                self._announced[name] = payload
            else:
                self._announced.pop(name, None)
        return changed

    def _remember(self, keys: set[str]) -> None:
        if keys <= self.had:
            return
        self.had |= keys
        try:
            write_tally(self._file, dict.fromkeys(self.had, 1))
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be written: {error.strerror}; check the state folder") from error

    def _sealed(self, card: ModelCard) -> bytes:
        return self._signer.seal(self._topic(card.name), card)

    def _topic(self, name: str) -> str:
        return MODEL.at(self._site, name=name)

"""`splitbus doctor`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from splitbus_cli.options import AsJson, Target


def doctor(target: Target, as_json: AsJson = False) -> None:
    """Examine a live broker and the site on it, and name each trap with its remedy.

    Exit code 0 when all is fine, 1 for warnings, 2 for what will break. It publishes to its own echo topic, and one
    empty, not retained message to the plan topic of a device called doctor.

    Example: splitbus doctor --broker mqtt://gateway.local
    """
    from splitbus_cli import doctor

    doctor.doctor(target, as_json=as_json)

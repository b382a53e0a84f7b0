"""`splitbus profile`: how long each part of a model takes on this machine, and whether what that predicts is so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from splitbus_cli.progress import progress_bar
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import milliseconds, percent
from splitbus_gateway.cut_times import CutTimes, measure_cuts
from splitbus_gateway.graph import ModelGraph, load_graph
from splitbus_gateway.local_profile import LocalSlices, profile_here
from splitbus_gateway.profile_file import ProfileFile
from splitbus_runtime.profiler import Stopwatch, Told
from splitbus_schemas.errors import ConfigError


@dataclass(frozen=True)
class Machine:
    """How the model is to be run."""

    threads: int = 0
    slowdown: float = 1.0


def show_profile(path: Path, machine: Machine, *, check: bool, as_json: bool, out: Path | None) -> None:
    """Profile a model file on this machine and print it, or write it to `out`. Raises ModelError, ConfigError."""
    _check_out(out)
    graph = load_graph(path)
    found = _profile(graph, machine)
    if out:
        _write(found, out)
    if as_json:
        print(found.model_dump_json(indent=2, exclude_none=True))
    else:
        _print_blocks(found)
    if check:
        _print_cuts(found, _measure(graph, machine, found), err=as_json)
    if out:
        Console(stderr=True).print(f"written to {out}", highlight=False, markup=False)


def _check_out(out: Path | None) -> None:
    """A minute's work is not lost for a wrong name."""
    if out and (out.is_dir() or not out.resolve().parent.is_dir()):
        raise ConfigError(f"{out} cannot be written: name a file in a folder that is there")


def _profile(graph: ModelGraph, machine: Machine) -> ProfileFile:
    with progress_bar() as progress:
        task = progress.add_task(f"timing the blocks of {graph.path.name}", total=None)

        def tell(told: Told) -> None:
            progress.update(task, completed=told.done, total=told.total)

        return profile_here(graph, threads=machine.threads, slowdown=machine.slowdown, progress=tell)


def _measure(graph: ModelGraph, machine: Machine, found: ProfileFile) -> list[CutTimes]:
    slices = LocalSlices(graph, threads=machine.threads, slowdown=machine.slowdown)
    stopwatch = Stopwatch(machine.threads, machine.slowdown)
    cuts = found.profile.cuts[:-1]
    measured: list[CutTimes] = []
    with progress_bar() as progress:
        task = progress.add_task("timing heads and tails", total=len(cuts))
        for times in measure_cuts(slices, found.profile, stopwatch, cuts):
            measured.append(times)
            progress.advance(task)
    return measured


def _write(found: ProfileFile, out: Path) -> None:
    try:
        out.write_text(found.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error


def _print_blocks(found: ProfileFile) -> None:
    profile = found.profile
    table = new_table(None, "to cut", "ms", "+-", "share", "from input", "after")
    elapsed = 0.0
    for cut, ms, spread, after in zip(profile.cuts, profile.block_ms, profile.spread_ms, found.after, strict=True):
        elapsed += ms
        add_row(
            table, str(cut), f"{ms:.3f}", f"{spread / 2:.3f}", percent(ms / profile.whole_ms), f"{elapsed:.3f}", after
        )
    Console().print(table)
    threads = f"{found.threads} thread{'s' * (found.threads != 1)}" if found.threads else "as many threads as it likes"
    slower = f", made {found.slowdown:g} times slower" if found.slowdown != 1 else ""
    print(f"{found.model_name} on {found.machine}, {threads}{slower}")
    blocks = "1 block" if len(profile.cuts) == 1 else f"{len(profile.cuts)} blocks"
    print(f"{blocks}, {milliseconds(sum(profile.block_ms))}; the whole {milliseconds(profile.whole_ms)}")
    if profile.local_ms is not None:
        print(f"from the model's own file, as a device runs it alone, it takes {milliseconds(profile.local_ms)}")


def _print_cuts(found: ProfileFile, cuts: list[CutTimes], *, err: bool) -> None:
    console = Console(stderr=err)
    if not cuts:
        console.print("no cut lies inside the model: there is no head and no tail to time")
        return
    table = new_table("Heads and tails", "cut", "head", "measured", "off", "tail", "measured", "off")
    whole = found.profile.whole_ms
    for times in cuts:
        head, tail = times.errors
        cells = (times.head, times.measured_head, head, times.tail, times.measured_tail, tail)
        texts = [percent(cell) if place % 3 == 2 else f"{cell * whole:.3f}" for place, cell in enumerate(cells)]
        add_row(table, str(times.cut), *texts)
    console.print(table)
    errors = [error for times in cuts for error in times.errors]
    console.print(
        f"predicted against measured: {percent(float(np.median(errors)))} off in the median, "
        f"{percent(float(np.quantile(errors, 0.9)))} at the 90th percentile",
        highlight=False,
    )

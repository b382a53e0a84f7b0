"""`splitbus cuts` and `splitbus verify`: where a model can be cut, and whether head and tail equal the whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from splitbus_cli.progress import progress_bar
from splitbus_cli.rows import Row
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import shape, size
from splitbus_gateway.graph import (
    CODECS,
    Cut,
    CutCheck,
    ModelGraph,
    all_cuts,
    cut_at,
    legal_cuts,
    load_graph,
    useful_cuts,
    verify,
)
from splitbus_gateway.samples import Feed, read_samples, sample_shapes
from splitbus_schemas.errors import ConfigError, ModelError

MAX_INPUTS: Final = 16
"""Inputs of a file that are tried, evenly chosen."""


def show_cuts(path: Path, *, inputs: Path | None, every: bool, as_json: bool) -> None:
    """Print the legal cuts of a model, or `every` place with what is against it. Raises ModelError."""
    graph, _ = _load(path, inputs)
    useful = useful_cuts(graph)
    chosen = {cut.index for cut in useful.cuts}
    start = cut_at(graph, 0).nbytes
    cuts = [cut for cut in all_cuts(graph) if every or cut.legal]
    rows = [_cut_row(cut, start, useful=cut.index in chosen) for cut in cuts]
    if as_json:
        print(json.dumps(_cuts_facts(graph, rows, useful.reason), indent=2))
    else:
        _print_cuts(graph, rows, useful.reason)


def _load(path: Path, inputs: Path | None) -> tuple[ModelGraph, list[Feed]]:
    """The model, sized by the inputs given, and those inputs."""
    graph = load_graph(path)
    if inputs is None:
        return graph, []
    if shapes := sample_shapes(inputs, graph.inputs):
        graph = load_graph(path, shapes=shapes)
    return graph, read_samples(inputs, graph.inputs, MAX_INPUTS)


def _cut_row(cut: Cut, start: int, *, useful: bool) -> Row:
    return {
        "index": cut.index,
        "after": cut.after,
        "tensors": [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes} for t in cut.tensors],
        "bytes": cut.nbytes,
        "of_input": round(cut.nbytes / start, 4) if start else None,
        "useful": useful,
        "legal": cut.legal,
        "reason": cut.reason,
    }


def _cuts_facts(graph: ModelGraph, rows: list[Row], reason: str) -> Row:
    return {
        "model": graph.sha256,
        "opset": graph.opset,
        "steps": graph.steps,
        "useful": [row["index"] for row in rows if row["useful"]],
        "whole_because": reason or None,
        "cuts": rows,
    }


def _print_cuts(graph: ModelGraph, rows: list[Row], reason: str) -> None:
    table = new_table(None, "cut", "", "bytes", "of input", "tensors", "after")
    for row in rows:
        tensors = ", ".join(f"{t['name']} {t['dtype']} {shape(t['shape'])}" for t in row["tensors"]) or "nothing"
        add_row(
            table,
            str(row["index"]),
            "*" if row["useful"] else "" if row["legal"] else "no",
            size(row["bytes"]),
            "-" if row["of_input"] is None else f"{row['of_input']:.2f}",
            tensors if row["legal"] else f"{tensors}: {row['reason']}",
            row["after"] or "(the input)",
        )
    console = Console()
    console.print(table)
    useful = sum(row["useful"] for row in rows)
    legal = sum(row["legal"] for row in rows)
    print(f"{graph.steps} nodes, opset {graph.opset}; {legal} legal cuts, {useful} useful (marked *)")
    if reason:
        print(f"served whole: {reason}")


def verify_cuts(
    path: Path,
    *,
    inputs: Path | None,
    codec: str,
    tolerance: float | None,
    cuts: Sequence[int],
    as_json: bool,
) -> bool:
    """Run head and tail against the whole at each cut and print the worst difference; whether all are within tolerance.

    Raises ModelError, ConfigError.
    """
    if codec not in CODECS:
        raise ConfigError(f"codec {codec!r} is not known: use one of {', '.join(CODECS)}")
    graph, feeds = _load(path, inputs)
    indices = _checked(graph, cuts)
    with progress_bar() as progress:
        task = progress.add_task(f"head and tail, codec {codec}", total=len(indices))
        checks = verify(
            graph,
            cuts=indices,
            feeds=feeds,
            codec=codec,
            tolerance=tolerance,
            progress=lambda _: progress.advance(task),
        )
    _print_checks(path, checks, as_json=as_json)
    return all(check.ok for check in checks)


def _checked(graph: ModelGraph, cuts: Sequence[int]) -> list[int]:
    for index in cuts:
        if not 0 <= index <= graph.steps:
            raise ModelError(f"{graph.path} has cuts 0 to {graph.steps}, not {index}")
        if reason := cut_at(graph, index).reason:
            raise ModelError(f"{graph.path} cannot be cut at {index}: {reason}")
    return list(dict.fromkeys(cuts)) or [cut.index for cut in legal_cuts(graph)]


def _print_checks(path: Path, checks: list[CutCheck], *, as_json: bool) -> None:
    worst = max(checks, key=lambda check: check.max_rel, default=None)
    wrong = [check for check in checks if not check.ok]
    if as_json:
        print(
            json.dumps(
                {
                    "ok": not wrong,
                    "cuts": [
                        {
                            "index": check.index,
                            "max_abs": _finite(check.max_abs),
                            "max_rel": _finite(check.max_rel),
                            "ok": check.ok,
                        }
                        for check in checks
                    ],
                },
                indent=2,
            )
        )
        return
    if worst is None:
        print(f"{path} has no legal cut: there is nothing to compare")
        return
    for check in wrong:
        print(f"cut {check.index} differs: {check.max_rel:.2e} of the largest output, {check.max_abs:.2e} absolute")
    print(
        f"{len(checks) - len(wrong)} of {len(checks)} cuts within tolerance; the worst is cut {worst.index} with "
        f"{worst.max_rel:.2e} of the largest output, {worst.max_abs:.2e} absolute"
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity; None says that shapes or finiteness differ."""
    return value if value < float("inf") else None

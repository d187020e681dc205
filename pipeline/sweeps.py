"""The curves of an ablation over decoding iterations."""

from typing import Any

from pipeline.rows import Results, Row


def sweep_curves(results: Results) -> dict[str, dict[tuple[str, str], dict[int, Row]]]:
    """Find the points of each curve over iterations.

    Rows are points by the names of their systems: ``soundstorm-level1-8``, ``soundstorm-finer-2``. A row of another
    name is a point too where its card says that it differs from them in the swept iterations only, so that the paper's
    schedule, a point of every curve, has to be rendered once.

    Args:
        results: What was found.

    Returns:
        Where the iterations are varied -> system and condition -> iterations, ascending -> row.
    """
    curves: dict[str, dict[tuple[str, str], dict[int, Row]]] = {}
    rows = results.rows
    for row in rows:
        if (sweep := row.sweep) is not None:
            points = curves.setdefault(sweep.levels, {}).setdefault((sweep.system, row.condition), {})
            points[sweep.iterations] = row
    cards = {Row(card["condition"], card["system"]): card for card in results.cards}
    for levels, of_levels in curves.items():
        swept = {row: found for row in rows if row in cards and (found := _split(cards[row], levels)) is not None}
        for key, points in of_levels.items():
            others = [swept[row][1] for row in points.values() if row in swept]
            for row, (iterations, rest) in swept.items():
                if rest in others:
                    points.setdefault(iterations, row)
            of_levels[key] = dict(sorted(points.items()))
    return curves


def _split(card: dict[str, Any], levels: str) -> tuple[int, dict[str, Any]] | None:
    """Split what a card says into the swept number of iterations and everything else but the system's name."""
    sampling = card.get("sampling") or {}
    iterations: list[int] = sampling.get("iterations") or []
    first, finer = iterations[:1], iterations[1:]
    if not finer or (levels == "finer" and len(set(finer)) > 1):
        return None
    number, fixed = (first[0], finer) if levels == "level1" else (finer[0], first)
    return number, card | {"system": None, "sampling": sampling | {"iterations": fixed}}

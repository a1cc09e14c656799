"""Measured rows as ratios, verdicts on the goals, and Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from peers import FACTORIES, FLOORS, KERNEL, LAYER, OURS, PEERS, PREDICT
from race import Row
from shapes import Shape

FRAMEWORKS64 = ("keras predict", "keras model(x)", "tf.function", "tf XLA", "torch", "JAX")


# --- figures ---


def shape_of(row: Row) -> Shape:
    return Shape(*row["shape"])


def figures(row: Row, name: str, kind: str = "medians") -> list[float]:
    """A figure a round, in seconds a call; only the checking call's for what took too long."""
    known = row["found"].get(name, {})
    return known.get(kind) or [known[key] for key in ("seconds",) if key in known]


def timed(row: Row, names: Iterable[str]) -> list[str]:
    return [name for name in names if figures(row, name)]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


class Ratio(NamedTuple):
    """Our time over another's: the median of the rounds, quartiles, and that of the minima."""

    name: str
    median: float
    low: float
    high: float
    minima: float


def ratio(row: Row, name: str, ours: str = KERNEL) -> Ratio:
    mine, others = figures(row, ours), figures(row, name)
    if len(others) == 1:
        others = others * len(mine)
    by_round = [a / b for a, b in zip(mine, others, strict=False)]
    minima = min(figures(row, ours, "minima")) / min(figures(row, name, "minima"))
    return Ratio(name, statistics.median(by_round), *quartiles(by_round), minima)


def hardest(row: Row, names: Iterable[str], ours: str = KERNEL) -> Ratio | None:
    """The ratio to the one of `names` that is hardest to beat."""
    if not timed(row, [ours]):
        return None
    ratios = [ratio(row, name, ours) for name in timed(row, names)]
    return max(ratios, key=lambda r: r.median, default=None)


# --- goals ---


class Goal(NamedTuple):
    """An upper bound, by number of threads, on the ratio to the best of `names` where `applies`."""

    what: str
    applies: Callable[[Shape], bool]
    names: tuple[str, ...]
    each: dict[int, float]
    mean: tuple[tuple[int, float], ...] = ()  # of the geometric mean over the shapes


def one_step(s: Shape) -> bool:
    return s.steps == s.rows == 1 and s.dtype == "float32"


def whole(s: Shape) -> bool:
    return s.steps > 1 and s.dtype == "float32"


GOALS = (
    Goal("one step of one row, H <= 128 / best peer",
         lambda s: one_step(s) and s.units <= 128, PEERS, {1: 0.22, 2: 0.22}),
    Goal("one step of one row, H = 32 / model.predict",
         lambda s: one_step(s) and s.units == 32, (PREDICT,), {1: 1 / 500, 2: 1 / 500}),
    Goal("one step of one row, H = 512 / best peer",
         lambda s: one_step(s) and s.units == 512, PEERS, {1: 0.9, 2: 1.0}),
    Goal("whole sequence, H <= 128 / best peer",
         lambda s: whole(s) and s.units <= 128, PEERS, {1: 0.85, 2: 0.80}, ((1, 0.65), (2, 0.55))),
    Goal("whole sequence, H >= 512 / best peer",
         lambda s: whole(s) and s.units >= 512, PEERS, {1: 1.0, 2: 1.0}),
    Goal("H >= 128 / the products alone through the best BLAS",
         lambda s: s.dtype == "float32" and s.units >= 128, FLOORS, {1: 1.1, 2: 1.2}),
    Goal("H < 128 / the products alone through the best BLAS",
         lambda s: s.dtype == "float32" and s.units < 128, FLOORS, {1: 1.5}),
    Goal("float64 / best of Keras, torch and JAX",
         lambda s: s.dtype == "float64", FRAMEWORKS64, {1: 1.0, 2: 1.0}),
)  # fmt: skip


class Verdict(NamedTuple):
    goal: str
    threads: int
    bound: float
    value: float
    where: str
    shapes: int
    beyond: list[str]

    @property
    def met(self) -> bool:
        return self.value <= self.bound


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Each goal for each number of threads of which there is a measurement."""
    found = []
    for goal in GOALS:
        for threads, bound in goal.each.items():
            ratios = {
                str(shape_of(row)): r
                for row in rows
                if row["threads"] == threads and goal.applies(shape_of(row))
                if (r := hardest(row, goal.names))
            }
            if not ratios:
                continue
            beyond = [
                f"{shape}: {number(r.median)} [{number(r.low)} to {number(r.high)}] ({r.name})"
                for shape, r in ratios.items()
                if r.median > bound
            ]
            worst = max(ratios, key=lambda shape: ratios[shape].median)
            value, where = ratios[worst].median, f"{worst} ({ratios[worst].name})"
            found.append(Verdict(goal.what, threads, bound, value, where, len(ratios), beyond))
            if mean_bound := dict(goal.mean).get(threads):
                mean = statistics.geometric_mean(r.median for r in ratios.values())
                what = f"{goal.what}, geometric mean"
                found.append(Verdict(what, threads, mean_bound, mean, "", len(ratios), []))
    return found


# --- text ---


def number(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def micro(seconds: float) -> str:
    us = 1e6 * seconds
    return f"{us / 1000:,.0f}k" if us >= 1e5 else number(us)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(text + [f"| {' | '.join(line)} |" for line in lines])


def print_rows(rows: Sequence[Row]) -> None:
    """On the screen, while the measurement goes on."""
    for row in rows:
        print(f"\n{shape_of(row)}, {row['threads']} thread(s): median [quartiles] us, error, ratio")
        for name, known in row["found"].items():
            values = figures(row, name)
            if not values:
                print(f"  {name:18} {known.get('skipped') or known.get('failed')}")
                continue
            low, high = quartiles(values)
            text = f"{micro(statistics.median(values)):>9} [{micro(low)} to {micro(high)}]"
            error = f"{known['error']:.0e}" if "error" in known else ""
            beside = ""
            if name != KERNEL and timed(row, [KERNEL]):
                beside = number(ratio(row, name).median)
            print(f"  {name:18}{text:32}{error:8}{beside}", flush=True)


def summary(rows: Sequence[Row]) -> str:
    """One line a shape: ours, the best peer, the best floor, and ratios."""
    lines = []
    for row in rows:
        if not timed(row, [KERNEL]):
            known = row["found"].get(KERNEL, {})
            why = known.get("failed") or known.get("skipped") or "not run"
            lines.append([str(shape_of(row)), f"none: {why}", *[""] * 7])
            continue
        mine = figures(row, KERNEL)
        line = [str(shape_of(row)), micro(statistics.median(mine))]
        line.append(" to ".join(micro(q) for q in quartiles(mine)))
        line.append(micro(statistics.median(v)) if (v := figures(row, LAYER)) else "")
        for names in (PEERS, FLOORS):
            best = hardest(row, names)
            if best is None:
                line += ["", "", ""] if names == PEERS else ["", ""]
                continue
            line.append(f"{best.name} {micro(statistics.median(figures(row, best.name)))}")
            spread = f"{number(best.median)} [{number(best.low)} to {number(best.high)}]"
            line.append(spread + ("" if best.median <= 1 or names == FLOORS else " **slower**"))
            if names == PEERS:
                line.append(number(best.minima))
        lines.append(line)
    head = (
        "cell B,T,F,H", "numba", "quartiles", "layer", "best peer", "numba / peer [quartiles]",
        "of minima", "best floor", "numba / floor [quartiles]",
    )  # fmt: skip
    return table(head, lines)


def everything(rows: Sequence[Row], kind: str) -> str:
    """Every competitor's median or least figure of every shape."""
    names = [name for name in FACTORIES if any(timed(row, [name]) for row in rows)]
    pick = statistics.median if kind == "medians" else min
    lines = []
    for row in rows:
        found = [figures(row, name, kind) for name in names]
        lines.append([str(shape_of(row)), *(micro(pick(v)) if v else "-" for v in found)])
    return table(("cell B,T,F,H", *names), lines)


def errors(rows: Sequence[Row]) -> str:
    """Largest absolute errors against float64, of the kernels and of the others."""
    lines = []
    for row in rows:
        known = {n: k["error"] for n, k in row["found"].items() if "error" in k}
        theirs = [error for name, error in known.items() if name not in OURS]
        if KERNEL in known and theirs:
            span = f"{min(theirs):.1e} to {max(theirs):.1e}"
            lines.append([str(shape_of(row)), f"{known[KERNEL]:.1e}", span])
    return table(("cell B,T,F,H", "numba", "others"), lines)


def skipped(rows: Sequence[Row]) -> list[str]:
    """Who has no figure where, by reason; in brackets the number of threads."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, known in row["found"].items():
            if why := known.get("failed") or known.get("skipped"):
                label = f"{shape_of(row)} ({row['threads']})"
                reasons.setdefault((name, why), []).append(label)
            elif "seconds" in known and "medians" not in known:
                label = f"{shape_of(row)} ({row['threads']})"
                reasons.setdefault((name, "timed once only, over 1.5 s"), []).append(label)
    return [
        f"- {name}: {why}: {', '.join(where) if len(where) <= 12 else f'{len(where)} measurements'}"
        for (name, why), where in reasons.items()
    ]


def slower(rows: Sequence[Row]) -> list[str]:
    """Every shape on which any peer is ahead of the kernels, and by how much."""
    found = []
    for row in rows:
        for name in timed(row, PEERS) if timed(row, [KERNEL]) else []:
            r = ratio(row, name)
            if r.median > 1:
                found.append(
                    f"- {shape_of(row)}, {row['threads']} thread(s): {name} is ahead, ratio"
                    f" {number(r.median)} [{number(r.low)} to {number(r.high)}]"
                )
    return found


def goals(rows: Sequence[Row]) -> str:
    """A line a goal and number of threads, then what lies behind each miss."""
    found = verdicts(rows)
    lines = [
        [v.goal, str(v.threads), number(v.bound), number(v.value), v.where, str(v.shapes),
         "yes" if v.met else f"**no**, {len(v.beyond)} of {v.shapes}" if v.beyond else "**no**"]
        for v in found
    ]  # fmt: skip
    head = ("goal: refrnn numba / ...", "threads", "at most", "measured", "where", "shapes", "met")
    missed = [
        f"- {v.goal}, {v.threads} thread(s), at most {number(v.bound)}: {'; '.join(v.beyond)}"
        for v in found
        if v.beyond
    ]
    text = table(head, lines)
    return text if not missed else f"{text}\n\nMissed at:\n\n" + "\n".join(missed)


def sections(rows: Sequence[Row]) -> str:
    """The Markdown of all that was raced."""
    parts = ["## Goals", goals(rows), "## Where others are ahead"]
    parts.append("\n".join(slower(rows)) or "Nowhere in this grid.")
    for threads in sorted({row["threads"] for row in rows}):
        for dtype in ("float32", "float64"):
            own = [r for r in rows if r["threads"] == threads and shape_of(r).dtype == dtype]
            if own:
                title = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
                parts += [f"## {title}", "Medians, microseconds a call.", summary(own)]
                parts += [f"### All medians: {title}", everything(own, "medians")]
                parts += [f"### All minima: {title}", everything(own, "minima")]
    parts += ["## Largest absolute errors against float64"]
    parts += [errors([r for r in rows if r["threads"] == 1] or rows)]
    if reasons := skipped(rows):
        parts += ["## Not timed", "\n".join(reasons)]
    return "\n\n".join(parts)


def machine_text() -> list[str]:
    """The processor and the versions of everything that took part."""
    from peers import PACKAGES
    from race import versions

    from refrnn.verify.table import here

    return [here()[1], ", ".join(f"{n} {v}" for n, v in versions(PACKAGES).items())]

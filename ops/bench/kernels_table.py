#!/usr/bin/env python3
"""Tables of what bench_kernels measured: share of the ceiling, and the ratio to the best peer beside it.

    ops/bench/kernels ... | ops/bench/kernels_table.py              a table of what it is given
    ops/bench/kernels_table.py kernels/lab/measured.jsonl           the same of files
    ops/bench/kernels_table.py --goals FILE...                      each goal: met or missed (kernels_goals.py)
    ops/bench/kernels_table.py --write                              the goals of kernels/README.md and the tables of
                                                                    kernels/lab/measured.md anew, from measured.jsonl there
    ops/bench/kernels_table.py --drop REGEX                         measured.jsonl without the lines of machines, paths and
                                                                    threads whose title REGEX finds

A case has one line for each peer. Its ratio is the smallest, which is that beside the best peer; its time is the median of the
line that has that peer. Each machine, path of instructions and number of threads has tables of its own; of a case that was
measured twice with the same three the later lines count. A median marked "disturbed" is far above its fastest run: others had the
machine meanwhile, and repeating did not help (samples.h).
"""

import json
import pathlib
import re
import sys

import kernels_goals

BEGIN = "<!-- measured: made by ops/bench/kernels_table.py -->"
END = "<!-- measured end -->"
GOALS_BEGIN = "<!-- goals: made by ops/bench/kernels_table.py -->"
GOALS_END = "<!-- goals end -->"
README = "kernels/README.md"
MEASURED = "kernels/lab/measured.jsonl"
TABLES = "kernels/lab/measured.md"

# Heading -> what the names of its cases match; the first that matches has the case.
GROUPS = [
    ("Between ranks of one machine", r"^(exchange|all-to-all) of "),
    ("Four rows over one (the ratio is one row's time over theirs)", r"^four rows over one"),
    ("Fused ends", r"^ends "),
    ("Batched products", r"^batched "),
    ("bf16 products", r"^(bf16|rounded) "),
    ("Products by quantised weights", r"^(quantised|grouped|int8 product) "),
    ("fp32 products", r"\b(nt|nn|tn)\b.* \d+x\d+x\d+$"),
    ("Attention", r"attention"),
    ("Losses", r"cross entropy|log softmax"),
    ("Optimizers", r"^(adamw|adamw8|sgd|lion|schedule-free|adafactor|muon)\b"),
    ("Training steps", r"^(step of|counters of) "),
    ("Weights and tokens", r"^(hash|pack|quantise|dequantise|sampling|choose|embedding|kv write|fill|to int8)"),
    ("Rows", r""),
]


def where(record):
    """What a line is compared within: machine, path of instructions, threads."""
    return record.get("machine"), record.get("path"), record.get("threads")


def title(place):
    machine, path, threads = place
    run = [path, "1 thread" if threads == 1 else f"{threads} threads"] if path else []
    return ", ".join([machine or "unknown machine", *run])


def newest(lines):
    """The records that count: of one place, case and peer the last, with the others of its run."""
    kept = {}  # (place, case) -> peer -> record
    for line in lines:
        if not line.startswith("{"):
            continue
        record = json.loads(line)
        if "case" not in record or "p50" not in record:
            continue
        key = (where(record), record["case"])
        if record.get("peer") in kept.get(key, {}):
            del kept[key]
        kept.setdefault(key, {})[record.get("peer")] = record
    return kept


def read(lines):
    """Cases in order: place -> name -> {"share", "ratio", "peer", "p50", "min"}."""
    places = {}
    for (place, name), peers in newest(lines).items():
        beside = [record for record in peers.values() if record.get("ratio") is not None]
        best = min(beside, key=lambda record: record["ratio"]) if beside else next(iter(peers.values()))
        places.setdefault(place, {})[name] = {key: best.get(key) for key in ("share", "ratio", "peer", "p50", "min") if key in best}
    return places


def time_of(microseconds):
    if microseconds < 1e3:
        return f"{microseconds:.0f} us"
    return f"{microseconds / 1e3:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"


def number(value):
    return "" if value is None else f"{value:.2f}"


def tables(places):
    for place, cases in places.items():
        yield ""
        yield f"### {title(place)}"
        yield from tables_of(cases)


def tables_of(cases):
    left = dict(cases)
    for heading, pattern in GROUPS:
        mine = [name for name in left if re.search(pattern, name)]
        if not mine:
            continue
        yield ""
        yield f"| {heading} | median | share of ceiling | best peer | its time over ours |"
        yield "|---|---|---|---|---|"
        for name in mine:
            case = left.pop(name)
            mark = " (disturbed)" if kernels_goals.disturbed(case) else ""
            yield (f"| {name} | {time_of(case['p50'])}{mark} | {number(case.get('share'))} | {case.get('peer') or ''} |"
                   f" {number(case.get('ratio'))} |")


def judged(lines):
    """The records as kernels_goals has them: (title, path) -> name -> records."""
    places = {}
    for (place, name), peers in newest(lines).items():
        places.setdefault((title(place), place[1]), {})[name] = list(peers.values())
    return places


def without(lines, pattern):
    """The lines but those of the places that the pattern finds."""
    return [line for line in lines
            if not (line.startswith("{") and re.search(pattern, title(where(json.loads(line)))))]


def between(text, begin, end, lines):
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    return before + "\n".join([begin, *lines, "", end]) + after


def made_anew(root):
    """What is made of the measured lines: path -> the file's text."""
    lines = (root / MEASURED).read_text().splitlines()
    goals, measured = ((root / name).read_text() for name in (README, TABLES))
    return {README: between(goals, GOALS_BEGIN, GOALS_END, ["", *kernels_goals.table(root, judged(lines))]),
            TABLES: between(measured, BEGIN, END, tables(read(lines)))}


def without_cause(root):
    """The goals that are missed and of which no line says why."""
    path = root / MEASURED
    return kernels_goals.without_cause(root, judged(path.read_text().splitlines())) if path.exists() else []


def current(root):
    """Whether the tables are what they would be made anew; None where there are none."""
    if not (root / TABLES).exists():
        return None
    return all((root / name).read_text() == text for name, text in made_anew(root).items())


def main(arguments):
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    if arguments == ["--write"]:
        for name, text in made_anew(root).items():
            (root / name).write_text(text)
        return 0
    if len(arguments) == 2 and arguments[0] == "--drop":
        path = root / MEASURED
        kept = without(path.read_text().splitlines(), arguments[1])
        path.write_text("".join(line + "\n" for line in kept))
        return 0
    paths = [argument for argument in arguments if argument != "--goals"]
    lines = [line for path in paths for line in pathlib.Path(path).read_text().splitlines()]
    lines = lines if paths else list(sys.stdin)
    print("\n".join(kernels_goals.table(root, judged(lines)) if "--goals" in arguments else tables(read(lines))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Tables of what bench_kernels measured: share of the ceiling, and the ratio to the best peer beside it.

    ops/bench/kernels ... | ops/bench/kernels_table.py              a table of what it is given
    ops/bench/kernels_table.py kernels/lab/measured.jsonl           the same of files
    ops/bench/kernels_table.py --goals FILE...                      each goal: met or missed (kernels_goals.py)
    ops/bench/kernels_table.py --misses FILE...                     of each goal that is missed all cases that miss it
    ops/bench/kernels_table.py --write                              the goals of kernels/README.md and the tables of
                                                                    kernels/lab/measured.md anew, from measured.jsonl there,
                                                                    which keeps the lines that count only

A case has one line for each peer. Its ratio is the smallest, which is that beside the best peer; its time is the median of the
line that has that peer. Each machine, path of instructions and number of threads has tables of its own, of one run: the lines of
the same sources (sources.py) as its last line; a newer run voids all lines of an older one of that place and program. A median
marked "disturbed" is far above its fastest run, or a peer's is: others had the machine meanwhile, and repeating did not help
(samples.h).
"""

import json
import pathlib
import re
import sys

import kernels_goals
import kernels_misses
import sources

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


CEILINGS = "kernels/ceilings"


def program(record):
    return (record.get("bench") or "").split("/")[0]


def run_of(record):
    """What the lines of one run have alike: the sources; of lines that do not say them, the commit."""
    return record.get("sources") or record.get("commit")


def standing(lines):
    """(line, record) of those that count: of each place and program the ones of the run that its last line is of."""
    pairs = [(line, json.loads(line)) for line in lines if line.startswith("{")]
    runs = {(where(record), program(record)): run_of(record) for _, record in pairs}
    return [(line, record) for line, record in pairs if runs[where(record), program(record)] == run_of(record)]


def records(lines):
    return [record for _, record in standing(lines)]


def newest(lines):
    """The records of cases that count: (place, case) -> peer -> record. A case that the run measured again has its later
    lines; a line without a peer is none where another has one."""
    kept = {}
    for record in records(lines):
        if "case" not in record or "p50" not in record or record.get("bench") == CEILINGS:
            continue
        mine = kept.setdefault((where(record), record["case"]), {})
        if record.get("peer") in mine:
            mine.clear()
        if record.get("peer") is not None:
            mine.pop(None, None)
        if record.get("peer") is not None or not mine:
            mine[record.get("peer")] = record
    return kept


def read(lines):
    """Cases in order: place -> name -> {"share", "ratio", "peer", "p50", "min", "peer_p50", "peer_min"}."""
    places = {}
    for (place, name), peers in newest(lines).items():
        beside = [record for record in peers.values() if record.get("ratio") is not None]
        best = min(beside, key=lambda record: record["ratio"]) if beside else next(iter(peers.values()))
        keys = ("share", "ratio", "peer", "p50", "min", "peer_p50", "peer_min")
        places.setdefault(place, {})[name] = {key: best[key] for key in keys if key in best}
    return places


def ceilings(lines):
    """place -> the lines of its ceilings, of each the last."""
    places = {}
    for record in records(lines):
        if record.get("bench") == CEILINGS and record.get("value"):
            places.setdefault(where(record), {})[record["case"]] = record
    return places


def measured_at(lines):
    """place -> at which commits and when its lines were measured."""
    places = {}
    for record in records(lines):
        said = f"commit {record.get('commit')}, {record.get('date') or 'without a date'}"
        places.setdefault(where(record), {})[said] = None
    return {place: "; ".join(said) for place, said in places.items()}


def stolen(lines):
    """place -> what the machine's host gave to others meanwhile, in the cases where it did most; of older lines nothing."""
    places = {}
    for record in records(lines):
        if "stolen" in record:
            places.setdefault(where(record), []).append(record["stolen"])
    return {place: f" Of the CPUs' time others had {100 * sum(shares) / len(shares):.1f} % (the mean of its cases; the worst"
                   f" {100 * max(shares):.0f} %)." for place, shares in places.items()}


def time_of(microseconds):
    if microseconds < 1e3:
        return f"{microseconds:.0f} us"
    return f"{microseconds / 1e3:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"


def number(value):
    return "" if value is None else f"{value:.2f}"


def tables(lines):
    limits, measured, others = ceilings(lines), measured_at(lines), stolen(lines)
    for place, cases in read(lines).items():
        yield ""
        yield f"### {title(place)}"
        yield ""
        yield f"Measured at {measured[place]}.{others.get(place, '')}"
        yield from table_of_ceilings(limits.get(place, {}))
        yield from tables_of(cases)


def table_of_ceilings(limits):
    if limits:
        yield ""
        yield "| Ceilings | least | median | most | tries | shares are of | unit |"
        yield "|---|---|---|---|---|---|---|"
    for name, record in limits.items():
        tries = " | ".join(str(record.get(key, "")) for key in ("min", "p50", "p99", "n"))
        yield f"| {name} | {tries} | {record['value']} | {record['unit']} |"


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
            ours, theirs = (" (disturbed)" if kernels_goals.far_above(case, *keys) else ""
                            for keys in (("min", "p50"), ("peer_min", "peer_p50")))
            yield (f"| {name} | {time_of(case['p50'])}{ours} | {number(case.get('share'))} | {case.get('peer') or ''} |"
                   f" {number(case.get('ratio'))}{theirs} |")


def judged(lines):
    """The records as kernels_goals has them: (title, path) -> name -> records."""
    places = {}
    for (place, name), peers in newest(lines).items():
        places.setdefault((title(place), place[1]), {})[name] = list(peers.values())
    return places


MACHINE = re.compile(r".+ \d+\.\d+, \d+ cores$")  # the CPU's name, family.model, cores: samples.cc, driver.py


def unfounded(root, lines):
    """One line for each run that is of no sources that this repository had, and for each machine that is named otherwise."""
    runs = {}
    for record in records(lines):
        runs.setdefault((title(where(record)), record.get("commit"), record.get("sources"), program(record)), record)
    for (place, commit, found, name), record in runs.items():
        if not MACHINE.match(record.get("machine") or ""):
            yield f"{place}: the machine is not named by its CPU, family.model and cores"
        if not sources.known(root, commit, found, name):
            yield f"{place}: {commit} is no commit behind this one, and none has its sources ({found})"


def between(text, begin, end, lines):
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    return before + "\n".join([begin, *lines, "", end]) + after


def made_anew(root):
    """What is made of the measured lines, and they: path -> the file's text."""
    lines = (root / MEASURED).read_text().splitlines()
    goals, measured = ((root / name).read_text() for name in (README, TABLES))
    return {README: between(goals, GOALS_BEGIN, GOALS_END, ["", *kernels_goals.table(root, judged(lines))]),
            TABLES: between(measured, BEGIN, END, tables(lines)),
            MEASURED: "".join(line + "\n" for line, _ in standing(lines))}


def faults(root):
    """One line each: a miss without a cause, a cause without a miss, a run of unknown sources."""
    path = root / MEASURED
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [*kernels_goals.without_cause(root, judged(lines)), *unfounded(root, lines), *sources_of_causes(root)]


def sources_of_causes(root):
    for cause in kernels_goals.causes(root):
        if not sources.known(root, cause.commit, None, None):
            yield f"{cause.goals} | {cause.place}: {cause.commit} is no commit behind this one"


def current(root):
    """Whether the tables are what they would be made anew, and no line is void; None where there are none."""
    if not (root / TABLES).exists():
        return None
    return all((root / name).read_text() == text for name, text in made_anew(root).items())


def main(arguments):
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    if arguments == ["--write"]:
        for name, text in made_anew(root).items():
            (root / name).write_text(text)
        return 0
    paths = [argument for argument in arguments if argument not in ("--goals", "--misses")]
    lines = [line for path in paths for line in pathlib.Path(path).read_text().splitlines()]
    lines = lines if paths else list(sys.stdin)
    told = (kernels_goals.table(root, judged(lines)) if "--goals" in arguments
            else kernels_misses.told(root, judged(lines)) if "--misses" in arguments else tables(lines))
    print("\n".join(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the CPU kernels are to reach, and what the measured lines say of it: a part of kernels_table.py.

A goal is judged where its cases were measured: by machine, path of instructions and threads, and there by its worst case. The
cause of a miss is a line of kernels/lab/causes.txt:

    GOAL | what the place's title matches | one line

The first line that fits counts; a miss without one is a finding of the lint.
"""

import dataclasses
import re
import typing

CAUSES = "kernels/lab/causes.txt"
DISTURBED = 1.25  # kDisturbed of ops/bench/samples.h

FP32 = r"^(?!bf16 |batched |rounded |quantised |int8 |four rows|ends ).*\b(nt|nn|tn) "
SIZES = r"(\d+)x\d+x\d+$"


@dataclasses.dataclass(frozen=True)
class Goal:
    name: str
    what: str
    cases: str  # what the names of its cases match
    wanted: typing.Union[float, dict]  # by path of instructions where it differs
    value: str = "share"  # a key of a line; "over": the time of ours over the peer's
    peer: str = ""  # what the peer's name matches, of ratios
    most: bool = False  # the figure is to be at most, not at least
    tokens: typing.Callable = lambda count: True  # of the product's rows, where the name ends in its sizes
    paths: tuple = ("",)  # how the paths of instructions begin that it names, each to be measured; "": it names none

    def wanted_at(self, path):
        return self.wanted.get(path) if isinstance(self.wanted, dict) else self.wanted


def by_path(avx2, wider):
    return {"avx2": avx2, "avx512": wider, "avx512bf16": wider}


LIBRARY = "^(blis|onednn|pytorch)$"
GOALS = [
    Goal("fp32", "fp32 products, 256 tokens and more: share of the ceiling", FP32 + SIZES, 0.92, tokens=lambda m: m >= 256),
    Goal("fp32-64", "fp32 products, 64 tokens: share of the ceiling", FP32 + SIZES, 0.85, tokens=lambda m: m == 64),
    Goal("fp32-peers", "fp32 products, 64 tokens and more, beside the best of BLIS, oneDNN, MKL", FP32 + SIZES, 1.0, "ratio", LIBRARY,
         tokens=lambda m: m >= 64),
    Goal("shards", "weight gradient with the tree of 8 shards, 1,024 tokens, beside the plain one", r"tn by 8 shards 1024x", 0.95,
         "ratio", "^plain$"),
    Goal("bf16", "bf16 products, native pairs: share of their ceiling", r"^bf16 native (?!packed )(?!over ).*" + SIZES, 0.90,
         tokens=lambda m: m >= 64, paths=("avx512bf16",)),
    Goal("bf16-tiles", "bf16 products, tiles: share of their ceiling", r"^bf16 tiles (?!packed )(?!over ).*" + SIZES, 0.90,
         tokens=lambda m: m >= 64),
    Goal("bf16-fp32", "bf16 products, widened, beside fp32", r"^bf16 widened over fp32, ", 0.9, "ratio", "^fp32$",
         paths=("avx2",)),
    Goal("int8", "int8 products, 64 tokens and more: share of the int8 ceiling",
         r"^(quantised int8_channel .* rows (64|512)|int8 product (64|512)x.*)$", 0.85),
    Goal("one-8", "one row by int8, q8_0: share of the memory ceiling", r"^quantised (int8_channel|q8_0) 11008x4096 rows 1$", 0.90),
    Goal("one-4", "one row by int4_group, nf4, q4_0, q4_k, q5_0: share of the memory ceiling",
         r"^quantised (int4_group|nf4|q4_0|q4_k|q5_0) 11008x4096 rows 1$", by_path(0.75, 0.90), paths=("avx2", "avx512")),
    Goal("four", "four rows over one, 11008x4096: time", r"^four rows over one, .* 11008x4096$", by_path(1.8, 1.3), "over",
         "^one row$", most=True, paths=("avx2", "avx512")),
    Goal("decode", "decode attention, grouped heads, 1k, 4k, 16k: share of the memory ceiling", r"^7B attention decode ", 0.85),
    Goal("attention", "attention, T = 256 to 4,096: share of the fp32 ceiling", r"attention (forward|backward) ", 0.70),
    Goal("attention-peer", "attention beside PyTorch's scaled_dot_product_attention", r"attention (forward|backward) ", 1.5, "ratio",
         "^pytorch$"),
    Goal("loss-forward", "linear + cross-entropy forward, V = 50,257, beside the product alone",
         r"^gpt2 linear cross entropy forward, chunks", 0.95, "ratio", "^the product alone$"),
    Goal("loss-training", "its training, by chunks of 256 rows, beside three products", r"^gpt2 linear cross entropy training, chunks",
         0.90, "ratio", "^three products$"),
    Goal("loss-blocks", "its form with memory independent of V but for two numbers a row and block, beside three products",
         r"^gpt2 linear cross entropy training, blocks", 0.70, "ratio", "^three products$"),
    Goal("adamw", "AdamW with hash and norm, GPT-2's size: share of the memory ceiling", r"^adamw with hash .*124439808$", 0.90),
    Goal("rows", "norms, softmax, activations, gates, dropout: share of the memory ceiling",
         r"^(layer norm|rms norm|softmax|gelu|gelu tanh|gate|silu gate|dropout)( forward| backward)? (8192x3072|32768x768|6144x4096)$",
         0.90),
    Goal("counters", "counters of ops: their part of a training step of the demo", r"^counters of its \d+ calls of ops", 0.01,
         most=True),
    Goal("rings", "shared-memory rings, all-to-all of 64 MiB: GB/s a rank", r"^all-to-all of 64 MiB", 3.0, "gbps"),
    Goal("rings-small", "shared-memory rings, exchange of 1 KiB: microseconds", r"^exchange of 1 KiB", 2.0, "p50", most=True),
]


def figure(goal, record):
    """The record's number; None where it has none, or another peer."""
    if goal.peer and not re.search(goal.peer, record.get("peer") or ""):
        return None
    if goal.value == "over":
        return 1.0 / record["ratio"] if record.get("ratio") else None
    return record.get(goal.value)


def figures(goal, cases):
    """Case -> its number, the worst of its records; `cases`: name -> records."""
    found = {}
    for name, records in cases.items():
        if not re.search(goal.cases, name):
            continue
        sizes = re.search(SIZES, name)
        if sizes and not goal.tokens(int(sizes.group(1))):
            continue
        numbers = [number for number in (figure(goal, record) for record in records) if number is not None]
        if numbers:
            found[name] = max(numbers) if goal.most else min(numbers)
    return found


def disturbed(record):
    """Whether others took the machine in so many of the line's runs that its median says little; such cases are measured
    again while they are (samples.h), and what is left so is marked."""
    return record.get("min", 0) > 0 and record["p50"] > DISTURBED * record["min"]


def causes(root):
    path = root / CAUSES
    lines = path.read_text().splitlines() if path.exists() else []
    return [[part.strip() for part in line.split("|", 2)] for line in lines if line and not line.startswith("#")]


def cause_of(goal, place, known):
    return next((text for name, where, text in known if name == goal.name and re.search(where, place)), "")


@dataclasses.dataclass(frozen=True)
class Judged:
    goal: Goal
    place: str
    low: float
    high: float
    wanted: float
    met: int
    of: int
    worst: str  # the case
    path: str  # of instructions; None: of none
    disturbed: bool  # whether the worst case's median is far above its minimum


def judged(places):
    """Each goal where it was measured; `places`: (title, path) -> name -> records."""
    for goal in GOALS:
        for (place, path), cases in places.items():
            wanted = goal.wanted_at(path)
            found = figures(goal, cases) if wanted is not None else {}
            if not found:
                continue
            met = [number for number in found.values() if (number <= wanted if goal.most else number >= wanted)]
            worst = max(found, key=found.get) if goal.most else min(found, key=found.get)
            yield Judged(goal, place, min(found.values()), max(found.values()), wanted, len(met), len(found), worst, path,
                         any(disturbed(record) for record in cases[worst]))


def number(value):
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def table(root, places):
    known = causes(root)
    yield "| goal | where | figure | goal | met | worst case; why |"
    yield "|---|---|---|---|---|---|"
    for j in judged(places):
        low, high = number(j.low), number(j.high)
        span = low if low == high else f"{low} .. {high}"
        met = "yes" if j.met == j.of else (f"{j.met} of {j.of}" if j.met else "no")
        cause = "" if j.met == j.of else (f"{j.worst}{' (disturbed)' if j.disturbed else ''}: "
                                          f"{cause_of(j.goal, j.place, known) or 'no cause is given'}")
        yield (f"| {j.goal.what} | {j.place} | {span} | {'<=' if j.goal.most else '>='} {j.wanted:g} | {met} | {cause} |")
    for goal, path in unmeasured(places):
        yield f"| {goal.what} | not measured{on_path(path)} | | | | |"


def on_path(path):
    return f" on {path}" if path else ""


def unmeasured(places):
    """The goals, each with a path that it names, of which no line has a figure: missed, too, as far as anybody knows."""
    seen = [(j.goal.name, j.path or "") for j in judged(places)]
    return [(goal, path) for goal in GOALS for path in goal.paths
            if not any(name == goal.name and measured.startswith(path) for name, measured in seen)]


def without_cause(root, places):
    known = causes(root)
    for goal, path in unmeasured(places):
        yield f"{goal.name} is measured nowhere{on_path(path)}"
    for j in judged(places):
        if j.met < j.of and not cause_of(j.goal, j.place, known):
            yield f"{j.goal.name} is missed on {j.place}"

"""What the CPU kernels are to reach, and what the measured lines say of it: a part of kernels_table.py.

A goal is judged where its cases were measured: by machine, path of instructions and threads, and there by its worst case. It is met
where every case that any place has of it was measured there and meets it. The cause of a miss is a line of kernels/lab/causes.txt:

    GOAL | what the place's title matches | what the worst case matches | the commit where it was seen | one line

The first line that fits counts; GOAL may name several (a|b). "share" as GOAL says why a share is above SHARE_MAX, and a place
"not measured on PATH" with the case "every case" why no machine has a goal there in full. A text that is no measurement begins with "(inference)".
Findings of the lint: a miss without a line, a line that no miss has, one that fits any case, and one that explains nothing.
"""

import dataclasses
import re
import typing

CAUSES = "kernels/lab/causes.txt"
DISTURBED = 1.25  # kDisturbed of ops/bench/samples.h
SHARE_MAX = 1.02  # of a ceiling: what is above is not one
INFERENCE = "(inference)"
UNEXPLAINED = re.compile(r"not taken apart|(is|are) not known|not explained|no cause", re.IGNORECASE)

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
    paths: tuple = ("avx2", "avx512")  # how the paths of instructions begin that it is to be measured on; "": of none
    peers: tuple = ()  # that a case is to have beside it, each

    def wanted_at(self, path):
        return self.wanted.get(path) if isinstance(self.wanted, dict) else self.wanted


def by_path(avx2, wider):
    return {"avx2": avx2, "avx512": wider, "avx512bf16": wider}


LIBRARIES = ("blis", "onednn", "pytorch")
LIBRARY = f"^({'|'.join(LIBRARIES)}|onednn matmul)$"
FORMS = "(by windows of 256|with slopes|with a cap|of packed samples)"
ONE_ROW = "(11008x4096|3072x768)"  # a 7B layer's weight, GPT-2's
GOALS = [
    Goal("fp32", "fp32 products, 256 tokens and more: share of the ceiling", FP32 + SIZES, 0.92, tokens=lambda m: m >= 256),
    Goal("fp32-64", "fp32 products, 64 tokens: share of the ceiling", FP32 + SIZES, 0.85, tokens=lambda m: m == 64),
    Goal("fp32-peers", "fp32 products, 64 tokens and more, beside the best of BLIS, oneDNN, MKL", FP32 + SIZES, 1.0, "ratio", LIBRARY,
         tokens=lambda m: m >= 64, peers=LIBRARIES),
    Goal("shards", "weight gradient with the tree of 8 shards, 1,024 tokens, beside the plain one", r"tn by 8 shards 1024x", 0.95,
         "ratio", "^plain$"),
    Goal("bf16", "bf16 products, native pairs: share of their ceiling", r"^bf16 native (?!packed )(?!over ).*" + SIZES, 0.90,
         tokens=lambda m: m >= 64, paths=("avx512bf16",)),
    Goal("bf16-tiles", "bf16 products, tiles: share of their ceiling", r"^bf16 tiles (?!packed )(?!over ).*" + SIZES, 0.90,
         tokens=lambda m: m >= 64, paths=("avx512bf16",)),
    Goal("bf16-fp32", "bf16 products, widened, and fp32 ones that round what they read, beside fp32",
         r"^(bf16 widened over fp32, |rounded widened )", 0.9, "ratio", "^fp32$", paths=("avx2",)),
    Goal("int8", "int8 products, 64 tokens and more: share of the int8 ceiling",
         r"^(quantised int8_channel .* rows (64|512)|int8 product (64|512)x.*)$", 0.85),
    Goal("one-8", "one row by int8, q8_0: share of the memory ceiling", rf"^quantised (int8_channel|q8_0) {ONE_ROW} rows 1$", 0.90),
    Goal("one-4", "one row by int4_group, nf4, q4_0, q4_k, q5_0: share of the memory ceiling",
         rf"^quantised (int4_group|nf4|q4_0|q4_k|q5_0) {ONE_ROW} rows 1$", by_path(0.75, 0.90)),
    Goal("four", "four rows over one: time", rf"^four rows over one, .* {ONE_ROW}$", by_path(1.8, 1.3), "over", "^one row$", most=True),
    Goal("decode", "decode attention, grouped heads, 1k, 4k, 16k: share of the memory ceiling", r"^7B attention decode ", 0.85),
    Goal("attention", "attention, T = 256 to 4,096: share of the fp32 ceiling", r"attention (forward|backward) ", 0.70),
    Goal("attention-peer", "attention beside PyTorch's scaled_dot_product_attention", r"attention (forward|backward) ", 1.5, "ratio",
         "^pytorch$"),
    Goal("attention-forms", "attention by windows, with slopes, with a cap, of packed samples: share of the fp32 ceiling",
         rf"attention {FORMS} (forward|backward) ", 0.70),
    Goal("loss-forward", "linear + cross-entropy forward, V = 50,257, beside the product alone by the same chunks",
         r"^gpt2 linear cross entropy forward, chunks", 0.95, "ratio", "^the product alone$"),
    Goal("loss-training", "its training, by chunks of 256 rows, beside three products by the same chunks", r"^gpt2 linear cross entropy training, chunks",
         0.90, "ratio", "^three products$"),
    Goal("loss-blocks", "its form with memory independent of V, beside three products",
         r"^gpt2 linear cross entropy training, blocks", 0.70, "ratio", "^three products$"),
    Goal("loss-forward-sizes", "the same forward at the demo's size and a 7B model's", r"^(demo|7b) linear cross entropy forward, chunks", 0.95,
         "ratio", "^the product alone$"),
    Goal("loss-training-sizes", "the same training at the demo's size and a 7B model's", r"^(demo|7b) linear cross entropy training, chunks", 0.90,
         "ratio", "^three products$"),
    Goal("loss-blocks-sizes", "the same with memory independent of V at the demo's size and a 7B model's",
         r"^(demo|7b) linear cross entropy training, blocks", 0.70, "ratio", "^three products$"),
    Goal("adamw", "AdamW with hash and norm, GPT-2's size: share of the memory ceiling", r"^adamw with hash .*124439808$", 0.90),
    Goal("rows", "norms, softmax, activations, gates, dropout: share of the memory ceiling",
         r"^(layer norm|rms norm|softmax|gelu|gelu tanh|gate|silu gate|dropout)( forward| backward)? (8192x3072|32768x768|6144x4096)$",
         0.90),
    Goal("counters", "counters of ops: their part of a training step of the demo", r"^counters of its calls of ops", 0.01,
         most=True, paths=("",)),
    Goal("rings", "shared-memory rings, all-to-all of 64 MiB: GB/s a rank", r"^all-to-all of 64 MiB", 3.0, "gbps", paths=("",)),
    Goal("rings-small", "shared-memory rings, exchange of 1 KiB: microseconds", r"^exchange of 1 KiB", 2.0, "p50", most=True, paths=("",)),
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
        if not set(goal.peers) <= {record.get("peer") for record in records}:
            continue
        numbers = [number for number in (figure(goal, record) for record in records) if number is not None]
        if numbers:
            found[name] = max(numbers) if goal.most else min(numbers)
    return found


def disturbed(record):
    """Whether others took the machine in so many of the line's runs that its median says little, ours or the peer's; such cases
    are measured again while they are (samples.h), and what is left so is marked."""
    return far_above(record, "min", "p50") or far_above(record, "peer_min", "peer_p50")


def far_above(record, least, median):
    return 0 < (record.get(least) or 0) < (record.get(median) or 0) / DISTURBED


@dataclasses.dataclass(frozen=True)
class Cause:
    goals: str
    place: str
    case: str
    commit: str
    text: str

    def fits(self, goal, place, case):
        return (re.fullmatch(self.goals, goal) and re.search(self.place, place) and re.search(self.case, case)) is not None

    def line(self):
        return f"{self.text} (at {self.commit})"


def causes(root):
    path = root / CAUSES
    lines = path.read_text().splitlines() if path.exists() else []
    return [Cause(*(part.strip() for part in line.split(" | ", 4))) for line in lines if line and not line.startswith("#")]


def cause_of(goal, place, case, known):
    return next((cause for cause in known if cause.fits(goal, place, case)), None)


@dataclasses.dataclass(frozen=True)
class Judged:
    goal: Goal
    place: str
    low: float
    high: float
    wanted: float
    met: int
    of: int  # cases that were measured here
    all: int  # that any place has
    worst: str  # the case
    absent: str  # the first one that was not measured here
    path: str  # of instructions; None: of none
    disturbed: bool  # whether a median of the worst case is far above its minimum

    def missed(self):
        return self.met < self.of


def judged(places):
    """Each goal where it was measured; `places`: (title, path) -> name -> records."""
    for goal in GOALS:
        found = {key: figures(goal, cases) for key, cases in places.items() if goal.wanted_at(key[1]) is not None}
        names = sorted(set().union(*found.values()))
        for (place, path), mine in found.items():
            if not mine:
                continue
            wanted = goal.wanted_at(path)
            met = [number for number in mine.values() if (number <= wanted if goal.most else number >= wanted)]
            worst = max(mine, key=mine.get) if goal.most else min(mine, key=mine.get)
            absent = next((name for name in names if name not in mine), "")
            yield Judged(goal, place, min(mine.values()), max(mine.values()), wanted, len(met), len(mine), len(names), worst, absent,
                         path, any(disturbed(record) for record in places[place, path][worst]))


def number(value):
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def why(j, known):
    """What the table says of a goal that is not met."""
    if j.missed():
        cause = cause_of(j.goal.name, j.place, j.worst, known)
        yield f"{j.worst}{' (disturbed)' if j.disturbed else ''}: {cause.line() if cause else 'no cause is given'}"
    if j.of < j.all:
        yield f"{j.all - j.of} not measured, as {j.absent}"


def table(root, places):
    known = causes(root)
    met = inferred = rows = 0
    yield "| goal | where | figure | goal | met | worst case; why, and at which commit that was seen |"
    yield "|---|---|---|---|---|---|"
    for j in judged(places):
        low, high = number(j.low), number(j.high)
        span = low if low == high else f"{low} .. {high}"
        full = j.met == j.all
        cause = cause_of(j.goal.name, j.place, j.worst, known) if j.missed() else None
        rows, met, inferred = rows + 1, met + full, inferred + (cause is not None and cause.text.startswith(INFERENCE))
        yield (f"| {j.goal.what} | {j.place} | {span} | {'<=' if j.goal.most else '>='} {j.wanted:g} |"
               f" {'yes' if full else f'{j.met} of {j.all}' if j.met else 'no'} | {'; '.join(why(j, known))} |")
    for goal, path in unmeasured(places):
        cause = cause_of(goal.name, not_measured(path), EVERY_CASE, known)
        rows += 1
        yield f"| {goal.what} | {not_measured(path)} in full | | | no | {cause.line() if cause else 'no cause is given'} |"
    yield ""
    yield f"Of {rows} rows {met} are met. Of the causes {inferred} are inferences, which no profile shows; they are marked so."


EVERY_CASE = "every case"
NO_CASE = "\x01"


def not_measured(path):
    return f"not measured on {path}" if path else "not measured"


def unmeasured(places):
    """The goals, each with a path that it is to be measured on, of which no place has every case."""
    seen = [(j.goal.name, j.path or "") for j in judged(places) if j.of == j.all]
    return [(goal, path) for goal in GOALS for path in goal.paths
            if not any(name == goal.name and measured.startswith(path) for name, measured in seen)]


def misses(places):
    """(goal, place, case) of each cause that is asked for."""
    for goal, path in unmeasured(places):
        yield goal.name, not_measured(path), EVERY_CASE
    for j in judged(places):
        if j.missed():
            yield j.goal.name, j.place, j.worst
    for (place, _), cases in places.items():
        for name, records in cases.items():
            if any((record.get("share") or 0.0) > SHARE_MAX for record in records):
                yield "share", place, name


def without_cause(root, places):
    """One line for each miss without a cause, and for each cause that is none."""
    known = causes(root)
    needed = set()
    for goal, place, case in misses(places):
        cause = cause_of(goal, place, case, known)
        needed.add(cause)
        if cause is None:
            what = f"the share is above {SHARE_MAX}" if goal == "share" else f"{goal} is missed"
            yield f"{what}: {place}, {case}: one line with the cause"
    for cause in known:
        told = f"{cause.goals} | {cause.place} | {cause.case}"
        if cause not in needed:
            yield f"{told}: no miss has this cause, or a line above has it"
        if re.search(cause.case, NO_CASE) is not None:
            yield f"{told}: fits any case, so that it would be the cause of all that is missed later"
        if UNEXPLAINED.search(cause.text):
            yield f"{told}: \"{UNEXPLAINED.search(cause.text).group(0)}\" is no cause"

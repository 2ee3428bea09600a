#!/usr/bin/env python3
"""The table of ops in kernels/README.md, made from the headers, the device interface and the measurements.

    ops/lint/op_catalogue.py [ROOT]            exit 0: the table is current; 1: it is not, one line says so
    ops/lint/op_catalogue.py --write [ROOT]    makes it anew

Ops are the functions of kernels/ops that take a context, and those of CONTEXT_FREE. A GPU has those that
kernels/ops/without_cuda.txt does not name, of the first. Shares are of the op's cases in kernels/lab/measured.jsonl, lines of
ops/bench/kernels, with one thread: least, median and most of a path of instructions. What no file says by itself is a row of FACTS. The lint fails an op without a row, without a case that the benchmark
can print, without bits in tests/golden/portable.txt or without a counter (holes() below), or whose tests compare it otherwise than its
row says (tested_tolerances.py).
"""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import kernels_table  # noqa: E402
import tested_tolerances  # noqa: E402

BEGIN = "<!-- ops: made by ops/lint/op_catalogue.py -->"
END = "<!-- ops end -->"
WITHOUT_CUDA = "kernels/ops/without_cuda.txt"
GOLDEN_ROWS = "tests/golden/portable.txt"

# How a result is summed: what makes it the same for any threads, and what its tolerance is made of.
CHAIN_K = "chain over k"
CHAIN_TOKENS = "chain over tokens"
LANES = "16 lanes over C"
# Cases of fp32 products: "demo up nt 2048x512x192", not "bf16 native demo up nt 2048x512x192" and "batched nt 3 of 512x512x512".
FP32 = r"^(?!bf16 |batched |rounded ).*\b"
NONE = "no sums"
EXACT = "exact"

# Row ops that are bound by memory are measured at a size that no cache holds, and at others.
def large(name):
    return rf"^{name} 8192x3072"


# op -> (profiles, sums, tolerance, what the names of its cases in the benchmark match)
FACTS = {
    "product_nt": ("portable", CHAIN_K, "chain bits", FP32 + r"nt \d"),
    "product_nn": ("portable", CHAIN_K, "chain bits, mean of terms", FP32 + r"nn \d"),
    "product_tn": ("portable", CHAIN_TOKENS, "chain bits, mean of terms", FP32 + r"tn \d"),
    "column_sums": ("portable", CHAIN_TOKENS, "chain bits, mean of terms", large("column sums")),
    "attention_forward": ("portable", "chains over D and keys, lanes for the softmax", "tokens + 2 D", "attention forward"),
    "attention_backward": ("portable", "chains over D, keys and queries", "mean of terms", "attention backward"),
    "attention_cached": ("portable; bf16, int8 pages", "as attention_forward, the same bits", "its bits", "attention decode"),
    "kv_write": ("portable; bf16, int8 pages", NONE, EXACT, "^kv write"),
    "linear_cross_entropy": ("portable", "lanes over blocks of V, chains as product", "C + V, mean of terms",
                             "cross entropy"),
    "choose_tokens": ("portable, and a GPU's of equal logits", "doubles: chains over stretches of 256, a chain of those", EXACT,
                      "^choose tokens"),
    "log_softmax": ("portable", "lanes over blocks of V", "V", "log softmax"),
    "softmax_forward": ("portable", LANES, "C", "softmax forward"),
    "softmax_backward": ("portable", LANES, "mean of terms", "softmax backward"),
    "rms_norm_forward": ("portable", LANES, "C", large("rms norm forward")),
    "rms_norm_backward": ("portable", LANES + "; " + CHAIN_TOKENS, "mean of terms", large("rms norm backward")),
    "layer_norm_forward": ("portable", LANES, "C", "layer norm forward"),
    "layer_norm_backward": ("portable", LANES + "; " + CHAIN_TOKENS, "mean of terms", "layer norm backward"),
    "activation_forward": ("portable", NONE, "activation", "gelu forward"),
    "activation_backward": ("portable", NONE, "mean of terms", "gelu backward"),
    "gate_forward": ("portable", NONE, "activation", "^gate forward"),
    "gate_backward": ("portable", NONE, "mean of terms", "^gate backward"),
    "silu_gate_forward": ("portable", NONE, "1", large("silu gate forward")),
    "silu_gate_backward": ("portable", NONE, "mean of terms", large("silu gate backward")),
    "rotary_angles": ("portable", NONE, "2", "^rotary angles"),
    "rotary_apply": ("portable", NONE, "2, 4", r"^rotary, heads of \d+, 8192x3072"),
    "embedding_forward": ("portable", NONE, EXACT, large("embedding forward")),
    "embedding_backward": ("portable", CHAIN_TOKENS, "chain bits, mean of terms", large("embedding backward")),
    "add_into": ("portable", "one addition", EXACT, "add into"),
    "tree_sum": ("portable", "the tree over shards", "tree bits", "tree sum"),
    "clear": ("portable", NONE, EXACT, "^clear"),
    "dropout": ("portable", NONE, "exact, mean of terms", "dropout"),
    "to_bf16": ("portable", NONE, EXACT, "to bf16 nearest"),
    "from_bf16": ("portable", NONE, EXACT, "from bf16"),
    "to_bf16_stochastic": ("portable", NONE, EXACT, "to bf16 stochastic"),
    "square_sums": ("portable", "16 lanes of doubles over a grid block", "C/16, doubles", "square sums"),
    "add_pieces": ("portable", "the tree over shards; lanes of doubles as square_sums", "tree bits", "^add pieces"),
    "hash_blocks": ("portable", NONE, EXACT, "^hash blocks"),
    "adamw_update": ("portable", NONE, "steps", "^adamw .*with hash"),
    "adamw8_update": ("portable", "largest of a block", "steps, half a code", "adamw8"),
    "sgd_update": ("portable", NONE, "steps", "^sgd"),
    "lion_update": ("portable", NONE, "steps", "^lion"),
    "schedule_free_update": ("portable", NONE, "steps", r"^schedule-free \d"),
    "schedule_free_average": ("portable", NONE, "own steps", "^schedule-free average"),
    "adafactor_update": ("portable", "lanes over rows, chains over columns", "rows + columns", "adafactor"),
    "muon_update": ("portable", "chains as product", "range of its polynomial", "muon"),
    "fill_normal": ("portable", NONE, "bits", "^fill normal"),
    "fill_uniform": ("portable", NONE, "bits", "^fill uniform"),
    "product_bf16_nt": ("portable, widened; bf16 by pairs; by tiles", "chain over k, over pairs, or groups of 32", "chain bits", r"^bf16 .*\bnt \d"),
    "product_bf16_nn": ("portable, widened; bf16 by pairs; by tiles", "chain over k, over pairs, or groups of 32", "chain bits, mean of terms", r"^bf16 .*\bnn \d"),
    "product_bf16_tn": ("portable, widened; bf16 by pairs; by tiles", "chain over k, over pairs, or groups of 32", "chain bits, mean of terms", r"^bf16 .*\btn \d"),
    "product_batched": ("portable", CHAIN_K, "chain bits, mean of terms", "^batched (?!bf16 )"),
    "product_bf16_batched": ("portable, widened; bf16 by pairs; by tiles", "chain over k, over pairs, or groups of 32", "chain bits, mean of terms",
                             "^batched bf16 "),
    "product_tn_shards": ("portable", "chains over tokens, the tree over shards", "tree bits, mean of terms", r"\btn by 8 shards \d"),
    "product_int8": ("portable", "exact integers, or those and a chain over cells of 32", "chain bits", "^int8 product"),
    "to_int8_rows": ("portable", "largest of a row", EXACT, "^to int8 rows"),
    "product_quantised": ("portable, and a GPU's", "chain over k, or exact integers and a chain over cells of 32", "chain bits, K",
                          "^quantised (?!nn )"),
    "product_quantised_grouped": ("portable, and a GPU's", "as product_quantised", "chain bits", "^grouped "),
    "product_quantised_nn": ("portable, and a GPU's", "chain over outputs", "chain bits, mean of terms", "^quantised nn "),
    "quantise_weight": ("portable", "extremes of a block", "bits", "^quantise weight"),
    "pack_rows": ("portable", NONE, EXACT, "^pack rows"),
    "pack_weight": ("portable", NONE, EXACT, "^pack weight"),
    "pack_bf16_weight": ("portable, widened; bf16 by pairs; by tiles", NONE, EXACT, "^pack bf16 weight"),
}

# op -> the names of its rows of GOLDEN_ROWS, in full; in braces what FILLS has, each of which has a row.
ACTIVATIONS = ("activations",)
BF16 = ("product bf16, widened", "product bf16, profile avx512bf16-bf16", "product bf16, profile amx-bf16",
        "product bf16, fused ends, profile {profile}")
NORMS = {name: (f"{name} norm forward", f"{name} norm forward, statistics") for name in ("rms", "layer")}


def with_states(*names):
    return tuple(row for name in names for row in (name, f"{name}, states"))


GOLDEN = {
    "activation_forward": ACTIVATIONS, "activation_backward": ACTIVATIONS, "gate_forward": ACTIVATIONS, "gate_backward": ACTIVATIONS,
    "adafactor_update": with_states("adafactor"),
    "adamw_update": with_states("adamw"),
    "adamw8_update": ("adamw, 8-bit states", "adamw, states of 8 bits"),
    "add_into": ("add",),
    "add_pieces": ("add pieces",),
    "attention_forward": tuple("attention forward" + which for which in (
        "", ", log sums", ", long", ", log sums of long ones", ", patterns", ", log sums of patterns", ", widths", ", log sums of widths",
        ", rounded to bf16")),
    "attention_backward": tuple("attention backward" + which for which in (
        "", ", long", ", patterns", ", widths", ", rounded to bf16", ", faint weights")),
    "attention_cached": ("attention, bf16 cache", "attention, int8 cache", "attention, pages by widths"),
    "choose_tokens": ("choose tokens",),
    "clear": (),  # zeros
    "column_sums": ("column sums",),
    "dropout": ("dropout",),
    "embedding_forward": ("embedding", "embedding, bf16"),
    "embedding_backward": ("embedding",),
    "fill_normal": ("fill normal",),
    "fill_uniform": ("fill uniform",),
    "from_bf16": ("nearest bf16",),
    "hash_blocks": ("weight hash",),
    "kv_write": ("kv write",),
    "layer_norm_forward": NORMS["layer"],
    "layer_norm_backward": ("layer norm backward",),
    "linear_cross_entropy": ("linear cross entropy", "linear cross entropy, long vocabulary", "linear cross entropy, faint weights"),
    "lion_update": with_states("lion"),
    "log_softmax": ("log softmax", "log softmax, other shapes"),
    "muon_update": with_states("muon"),
    "pack_bf16_weight": ("pack bf16 weight, profile {profile}", "product bf16, packed, profile {profile}"),
    "pack_rows": ("image {format}, version 1",),
    "pack_weight": ("image f32",),
    "product_batched": ("product, batched", "product, batched, fused ends"),
    "product_bf16_batched": ("product, batched, of bf16", "product, batched, of bf16, profile {profile}"),
    "product_bf16_nt": (*BF16, "product bf16, packed, profile {profile}"),
    "product_bf16_nn": BF16,
    "product_bf16_tn": BF16,
    "product_int8": ("product int8", "product int8, by cells", "product int8, by values"),
    "product_nt": ("product", "product, fused ends"),
    "product_nn": ("product", "product, fused ends of nn and tn"),
    "product_tn": ("product", "product, fused ends of nn and tn"),
    "product_tn_shards": ("product by shards",),
    "product_quantised": tuple("product quantised, " + which for which in (
        "exact", "int8", "few cells", "bf16 activations", "zeros by group", "fp8 of any length")),
    "product_quantised_grouped": ("product quantised, grouped",),
    "product_quantised_nn": ("product quantised, nn", "product quantised, nn of bf16"),
    "quantise_weight": ("image {format}, version 1",),
    "rms_norm_forward": NORMS["rms"],
    "rms_norm_backward": ("rms norm backward",),
    "rotary_angles": ("rotary", "rotary, an attention factor"),
    "rotary_apply": ("rotary", "rotary, an attention factor"),
    "schedule_free_average": ("schedule-free average",),
    "schedule_free_update": with_states("schedule-free adamw"),
    "sgd_update": with_states("sgd", "sgd, nesterov", "sgd, no momentum"),
    "silu_gate_forward": ("silu gate",),
    "silu_gate_backward": ("silu gate",),
    "softmax_forward": ("softmax",),
    "softmax_backward": ("softmax",),
    "square_sums": ("square sums",),
    "to_bf16": ("nearest bf16",),
    "to_bf16_stochastic": ("stochastic bf16",),
    "to_int8_rows": ("int8 rows",),
    "tree_sum": ("tree sum",),
}
# What stands in a name's braces -> the source that names each of its kind, and how it does.
FILLS = {
    "{format}": ("kernels/cpu/quant/weight_format.cc", r'case WeightFormat::\w+: return "(\w+)";'),
    "{profile}": ("kernels/cpu/product/bf16.cc", r'\{Bf16Arithmetic::\w+, "([^"]+)"\}'),
}
# Ops that no ceiling is known for: why.
WITHOUT_CEILING = {
    "choose_tokens": "none: draws, in doubles",
    "rotary_angles": "none: elementary functions",
}

# What works on host memory by itself: name -> (header, its rows of GOLDEN_ROWS, its cases of the benchmark; None: it is made
# once for a model).
CONTEXT_FREE = {
    "argmax": ("sampling.h", ("sampling",), "^sampling greedy"),
    "sample": ("sampling.h", ("sampling",), "^sampling (?!greedy)"),
    "penalise": ("sampling.h", ("penalties",), "^penalties"),
    "quantise_row": ("weights/weight_format.h", ("quantise {format}",), "^quantise weight"),
    "dequantise_row": ("weights/weight_format.h", ("quantise {format}",), "^dequantise "),
    "rotary_frequencies": ("rotary.h", ("rotary frequencies",), None),
}
# Rows of what is no op.
OTHER_GOLDEN = ("training, 20 steps", "training, 20 steps, profile {profile}", "training, 20 steps, profile portable-fp16")


def ops_of(root):
    """(op, header) by header and place."""
    pattern = re.compile(r"^Result<[^(\n]*>\s+(\w+)\(\s*const OpContext& ctx,", re.MULTILINE)
    for header in sorted((root / "kernels/ops").rglob("*.h")):
        if "reference" in header.parts:
            continue
        for match in pattern.finditer(header.read_text()):
            yield match.group(1), header.relative_to(root / "kernels/ops").as_posix()


def golden_rows(root):
    path = root / GOLDEN_ROWS
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines() if " " in line] if path.exists() else []


def filled(root, names):
    """The names with each thing that FILLS has in place of their braces."""
    for fill, (source, pattern) in FILLS.items():
        path = root / source
        found = re.findall(pattern, path.read_text()) if path.exists() else []
        names = [name.replace(fill, each) for name in names for each in (found if fill in name else [fill])]
    return names


def bits_of(root, op, names, rows, tests):
    """What is wrong with an op's golden rows: one that the file lacks, and one that no test which calls the op makes.
    Each row has its own name in full: "image bf16" is none of an op whose row is "image bf16, packed"."""
    strings = [set(re.findall(r'"([^"\n]+)"', text)) for text in tests if re.search(rf"\b{op}\b", text)]
    for name in filled(root, names):
        if name not in rows:
            yield f"{op} has no bits in {GOLDEN_ROWS}: no row \"{name}\""
        elif not any(is_made_of(name, own) for own in strings):
            yield f"{op}: no test that calls it makes the bits of \"{name}\""


def is_made_of(name, strings):
    """Whether a test with these strings can make the row: one of them, two in a row, or one that ends with a space (what
    stands in braces follows)."""
    return any(name == begin or (name.startswith(begin) and (begin.endswith(" ") or name[len(begin):] in strings)) for begin in strings)


def golden_tests(root):
    return [text for folder in ("tests/parity", "tests/golden") for path in sorted((root / folder).rglob("*.cc"))
            for text in tested_tolerances.tests_of(path, root) if "olden" in text]


def possible_cases(root):
    """What names of cases the benchmark's sources can make: their strings, a word of the same file in a place that is
    filled or before a string that begins with a space, the others numbers; alone, and with a shape behind."""
    names = set()
    for path in sorted((root / "ops/bench").glob("kernels_*.cc")):
        strings = set(re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text()))
        words = [word for word in strings if "{" not in word and len(word) <= 20]
        for string in strings:
            pieces = re.split(r"\{[^}]*\}", string)
            names.add("8".join(pieces))
            if string.startswith(" "):
                names.update(word + string for word in words)
            for place in range(1, len(pieces)):
                before, behind = "8".join(pieces[:place]), "8".join(pieces[place:])
                names.update(before + word + behind for word in words)
    return [name.strip() + shape for name in names for shape in ("", " 8192x3072")]


def holes_of_context_free(root, rows, tests, cases):
    for name, (header, golden, pattern) in CONTEXT_FREE.items():
        path = root / "kernels/ops" / header
        if not path.exists():
            continue
        if not re.search(rf"\b{name}\(", path.read_text()):
            yield f"kernels/ops/{header}", f"{name} of CONTEXT_FREE in ops/lint/op_catalogue.py is not there"
        for text in bits_of(root, name, golden, rows, tests):
            yield f"kernels/ops/{header}", text
        if pattern is not None and not any(re.search(pattern, case) for case in cases):
            yield f"kernels/ops/{header}", f"{name} has no case of the benchmark: none is named \"{pattern}\""


def holes(root):
    """What the catalogue lacks, one line each: (file, text)."""
    ops = dict(ops_of(root))
    rows = golden_rows(root)
    cases = possible_cases(root)
    tests = golden_tests(root)
    yield from holes_of_context_free(root, rows, tests, cases)
    for op, header in ops.items():
        if op not in FACTS:
            yield f"kernels/ops/{header}", f"{op} has no row in FACTS of ops/lint/op_catalogue.py"
        elif not FACTS[op][3] or not any(re.search(FACTS[op][3], case) for case in cases):
            yield f"kernels/ops/{header}", f"{op} has no case of the benchmark: none is named \"{FACTS[op][3]}\""
        if op not in GOLDEN:
            yield f"kernels/ops/{header}", f"{op} has no bits in {GOLDEN_ROWS}: a test with a Golden, and a row of GOLDEN"
        for text in bits_of(root, op, GOLDEN.get(op, ()), rows, tests):
            yield f"kernels/ops/{header}", text
    columns = {op: FACTS[op][2] for op in ops if op in FACTS}
    for text in tested_tolerances.untested(root, columns):
        yield "ops/lint/op_catalogue.py", text
    yield from uncounted(root)
    yield from shareless(root)
    for op in sorted((FACTS.keys() | GOLDEN.keys()) - ops.keys()):
        yield "ops/lint/op_catalogue.py", f"{op} is no op of kernels/ops"
    named = [*OTHER_GOLDEN, *(name for names in GOLDEN.values() for name in names),
             *(name for _, names, _ in CONTEXT_FREE.values() for name in names)]
    for row in sorted(set(rows) - set(filled(root, named))):
        yield GOLDEN_ROWS, f"\"{row}\" belongs to no op: a row of GOLDEN"


def counters_of(root):
    """The counters as the header has them, and as the names beside them."""
    path = root / "kernels/tensor/op_counters.h"
    if not path.exists():
        return [], []
    rows = re.search(r"enum class Op \{\n(.*?)\};", path.read_text(), re.S).group(1)
    names = re.search(r"kNames = \{\n(.*?)\};", path.with_suffix(".cc").read_text(), re.S).group(1)
    return re.findall(r"(\w+),", rows), re.findall(r'"(\w+)",', names)


def uncounted(root):
    """(file, text) of each op whose source begins no timer of its counter, and of each counter without an op."""
    sources = [path.read_text() for path in sorted((root / "kernels").rglob("*.cc")) if "cuda" not in path.parts]
    rows, names = counters_of(root)
    if rows != names or rows != sorted(rows):
        yield "kernels/tensor/op_counters.cc", "rows and names of the counters are not the same, by name"
    for op, header in ops_of(root):
        homes = [text for text in sources if re.search(rf"^Result<[^(\n]*>\s+{op}\(\s*const OpContext& ctx\b[^;{{]*\{{", text, re.M)]
        timed = [text for text in homes if "OpTimer timer(" in text and re.search(rf"\bOp::{op}\b", text)]
        if op not in rows or not timed or timed != homes:
            yield f"kernels/ops/{header}", f"{op} has no counter: a row of op_counters.h and an OpTimer of it where the op computes"
    for row in set(rows) - {op for op, _ in ops_of(root)}:
        yield "kernels/tensor/op_counters.h", f"{row} counts no op"


def without_cuda(root):
    """The ops that no GPU has; the lint (check_ops) sees to it that all others are handed to a device."""
    listed = root / WITHOUT_CUDA
    lines = listed.read_text().splitlines() if listed.exists() else []
    return {line.split()[0] for line in lines if line and not line.startswith("#") and ": " not in line}


def forms_without_cuda(root):
    """form -> ops of each `ops: form  reason` line, with the line's words as not_on_device has them."""
    listed = root / WITHOUT_CUDA
    forms = {}
    for line in listed.read_text().splitlines() if listed.exists() else []:
        words = re.match(r"([\w, ]+: .*?)(?:  |$)", line)
        if words:
            ops, form = words.group(1).split(": ")
            forms[words.group(1)] = (ops.split(", "), form)
    return forms


def measurements(root):
    """The lines that count: of a case measured twice in one place, the later."""
    path = root / kernels_table.MEASURED
    if not path.exists():
        return []
    return [record for peers in kernels_table.newest(path.read_text().splitlines()).values() for record in peers.values()]


# How the paths of instructions begin that have a column.
PATHS = {"AVX2": "avx2", "AVX-512": "avx512"}


def shares(lines, pattern):
    return sorted(line["share"] for line in lines if pattern and re.search(pattern, line["case"]) and line.get("share"))


def share_of(lines, pattern):
    """Least, median and most of the op's cases."""
    mine = shares(lines, pattern)
    if not mine:
        return ""
    three = [f"{share:.2f}" for share in (mine[0], mine[len(mine) // 2], mine[-1])]
    return three[0] if three[0] == three[2] else ", ".join(three)


def on_path(lines, begin):
    return [line for line in lines if (line.get("path") or "").startswith(begin) and line.get("threads") == 1]


def shareless(root):
    """(file, text) of each op without a share on a path that was measured since lines say their sources."""
    lines = [line for line in measurements(root) if line.get("sources")]
    for path in PATHS.values():
        mine = on_path(lines, path)
        for op, _ in ops_of(root) if mine else []:
            if op in FACTS and op not in WITHOUT_CEILING and not shares(mine, FACTS[op][3]):
                yield kernels_table.MEASURED, f"{op} has no share of a ceiling on {path}, and no row of WITHOUT_CEILING"


def table(root):
    lines = measurements(root)
    machines = sorted({kernels_table.title(kernels_table.where(line)) for line in lines if line.get("threads") == 1})
    yield BEGIN
    yield ""
    yield f"| op | header | profiles | devices | sums | tolerance | {' | '.join(f'share, {path}' for path in PATHS)} |"
    yield "|---|---|---|---|---|---|" + "---|" * len(PATHS)
    host_only = without_cuda(root)
    refused = {}
    for ops, form in forms_without_cuda(root).values():
        for op in ops:
            refused.setdefault(op, []).append(form)
    for op, header in ops_of(root):
        profiles, sums, tolerance, cases = FACTS.get(op, ("", "", "", ""))
        devices = "CPU" if op in host_only else "CPU, CUDA"
        devices += f" (without {', '.join(refused[op])})" if op in refused else ""
        columns = [share_of(on_path(lines, path), cases) or WITHOUT_CEILING.get(op, "") for path in PATHS.values()]
        yield f"| `{op}` | `{header}` | {profiles} | {devices} | {sums} | {tolerance} | {' | '.join(columns)} |"
    yield ""
    free = [f"`{name}` (`{header}`)" for name, (header, _, _) in CONTEXT_FREE.items()]
    yield "On host memory, by the calling thread and without a context, the bits portable too: " + ", ".join(free) + "."
    yield ""
    yield ("Tolerances are arguments of functions in `tests/parity/harness.h`, which have their derivations: terms of "
           "`tolerance(terms, magnitude)`; \"mean of terms\", against")
    yield ("central differences, of `mean_tolerance(terms)`; \"activation\" is `activation_tolerance(x)`. Shares are of the "
           "arithmetic or the memory ceiling of the same run, with one thread: least, median and most of an op's cases on ")
    yield ("; ".join(machines) if machines else "not measured") + "."
    yield ""
    yield END


def made_anew(root, text):
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return before + "\n".join(table(root)) + after


def current(root):
    """Whether the table is what it would be made anew; None where there is none."""
    text = (root / "kernels/README.md").read_text()
    return made_anew(root, text) == text if BEGIN in text else None


def main(arguments):
    paths = [argument for argument in arguments if not argument.startswith("--")]
    root = pathlib.Path(paths[0]) if paths else pathlib.Path(__file__).resolve().parent.parent.parent
    readme = root / "kernels/README.md"
    if "--write" in arguments:
        readme.write_text(made_anew(root, readme.read_text()))
    elif not current(root):
        print("kernels/README.md: the table of ops is not current: ops/lint/op_catalogue.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

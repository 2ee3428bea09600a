#!/usr/bin/env python3
"""The lint finds what it is there to find: a tree with one fault of each rule, and a clean one."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import op_catalogue
import kernels_goals  # op_catalogue knows where they are
import kernels_misses
import kernels_table
import sources
import tested_tolerances

LINT = pathlib.Path(__file__).with_name("lint.py")

FAULTS = {
    "dependency": ("kernels/ops/a.cc", '#include "coordinator/api/b.h"\n'),
    "third-party": ("worker/agent/a.cc", "#include <yaml-cpp/yaml.h>\n"),
    "size": ("jobs/data/a.cc", "int x;\n" * 601),
    "width": ("jobs/data/b.cc", "//" + "x" * 100 + "\n"),
    "function": ("jobs/data/c.cc", "int f() {\n" + "  g();\n" * 70 + "}\n"),
    "words": ("jobs/data/d.cc", "// TO" + "DO: finish\n"),
    "header": ("jobs/data/e.h", "int x;\n"),
    "cuda": ("kernels/ops/y.h", "// Y.\n#pragma once\nResult<> y(const OpContext& ctx, const Y& args);\n"),
    "pure": ("coordinator/life/x.cc", "auto now = monotonic_now();\n"),
    "name": ("jobs/data/utils.cc", "int x;\n"),
    "atomics": ("kernels/cuda/x.cu", "  atomicAdd(sums + lane, x * y);\n"),
    "libm": ("kernels/cuda/y.cu", "  a.lse[row] = top + logf(total);\n"),
    "forms": ("kernels/cpu/y.cc", "  if (ctx.device != nullptr) {\n    return Error{ErrorCode::unsupported, 0};\n  }\n"),
    "sums": ("kernels/collective/x.cc", "auto r = ncclAllReduce(a, b, n, ncclFloat, ncclSum, comm, stream);\n"),
}


# A case of the benchmark -> the one op whose share of the ceiling it is.
CASES = {
    "demo up nt 2048x512x192": "product_nt",
    "demo up nn 2048x512x192": "product_nn",
    "demo up tn 2048x512x192": "product_tn",
    "bf16 native demo attention nt 2048x192x192": "product_bf16_nt",
    "bf16 widened gpt2 up tn 1024x3072x768": "product_bf16_tn",
    "gpt2 up tn by 8 shards 1024x3072x768": "product_tn_shards",
    "batched nt 3 of 512x512x512": "product_batched",
    "batched bf16 widened nt 3 of 512x512x512": "product_bf16_batched",
    "int8 product 64x11008x4096": "product_int8",
    "quantised by bf16 rows, q4_k 64x11008x4096": "product_quantised",
    "grouped q4_k 8 by 1x3072x768": "product_quantised_grouped",
    "quantised q4_k 3072x768 rows 1": "product_quantised",
    "silu gate forward 8192x3072": "silu_gate_forward",
    "gate forward 8192x3072": "gate_forward",
    "adamw with hash 25165824": "adamw_update",
    "adamw8 25165824": "adamw8_update",
    "schedule-free 25165824": "schedule_free_update",
    "schedule-free average 25165824": "schedule_free_average",
    "rotary, heads of 128, 8192x3072": "rotary_apply",
    "quantised nn q4_k 512x3072x768": "product_quantised_nn",
    "quantise weight q4_k 1376x4096": "quantise_weight",
    "pack bf16 weight widened 11008x4096": "pack_bf16_weight",
    "pack weight 11008x4096": "pack_weight",
    "pack rows q4_k 1376x4096": "pack_rows",
    "to int8 rows 8192x3072": "to_int8_rows",
    "choose tokens, 8 rows of 50257": "choose_tokens",
}


def shares_by_case():
    """One line a case whose share is not its op's, or also another's."""
    for case, op in CASES.items():
        line = [{"case": case, "share": 0.5}]
        found = [name for name, facts in op_catalogue.FACTS.items() if op_catalogue.share_of(line, facts[3])]
        if found != [op]:
            yield f"catalogue: {case} is counted for {found}, not for {op}"


def line(case, path="avx512", p50=1.0, machine="A", threads=1, sources="s", **more):
    return json.dumps({"bench": "kernels/ops", "case": case, "p50": p50, "machine": machine, "path": path, "threads": threads,
                       "sources": sources, "commit": "c", "peer": None, "ratio": None, "share": None} | more)


def lines_by_place():
    """One line a fault in how measurements of several machines, paths, threads and runs are kept apart."""
    lines = [line("old", "avx2", sources="r"), line("x", "avx2", 1.0), line("x", "avx512", 2.0), line("x", "avx2", 3.0, threads=2),
             line("x", "avx2", 4.0, machine="B"), line("w", "avx2", 4.5),
             line("y", "avx2", 5.0, peer="one", ratio=2.0), line("y", "avx2", 6.0, peer="two", ratio=1.5),
             line("z", "avx2", 7.0, peer="one", ratio=2.0), line("z", "avx2", 8.0, peer="one", ratio=3.0), line("x", "avx512", 9.0),
             line("w", "avx2", 10.0, peer="one", ratio=1.0), line("x", "avx2", 11.0, bench="training/links", sources="r")]
    kept = kernels_table.read(lines[:-1])
    found = {(place, case): (row["p50"], row["peer"]) for place, cases in kept.items() for case, row in cases.items()}
    wanted = {(("A", "avx2", 1), "x"): (1.0, None), (("A", "avx512", 1), "x"): (9.0, None),
              (("A", "avx2", 2), "x"): (3.0, None), (("B", "avx2", 1), "x"): (4.0, None), (("A", "avx2", 1), "w"): (10.0, "one"),
              (("A", "avx2", 1), "y"): (6.0, "two"), (("A", "avx2", 1), "z"): (8.0, "one")}
    if found != wanted:
        yield f"kernels_table: kept {found}, not {wanted}"
    if [each for each, _ in kernels_table.standing(lines)] != lines[1:]:
        yield "kernels_table: lines of an older run of a place stand, or another program's make them void"


def runs_by_commit():
    """One line a fault in which runs the lint takes for ours: those of a commit behind HEAD, or of sources that one had."""
    def git(folder, *arguments):
        done = subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], capture_output=True,
                              text=True, check=True)
        return done.stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        git(folder, "init", "-q")
        for name, text in (("kernels/a.cc", "1"), ("kernels/lab/b.md", "2"), ("kernels/a.cc", "3")):
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            git(folder, "add", "-A")
            git(folder, "commit", "-qm", name)
        commits = git(folder, "log", "--format=%h").split()  # the newest first
        hashes = [sources.hash_of(folder, commit, ()) for commit in commits]
        if hashes[0] == hashes[1] or hashes[1] != hashes[2]:
            yield "sources: a text changes their hash, or a source does not"
        if sources.state(folder, ()) != (git(folder, "rev-parse", "--short=8", "HEAD"), hashes[0]):
            yield "sources: a clean tree is not its commit"
        git(folder, "commit", "-q", "--amend", "-m", "other")
        pathlib.Path(folder, "kernels/a.cc").write_text("4")
        if not sources.state(folder, ())[0].endswith("-dirty") or sources.state(folder, ())[1] == hashes[0]:
            yield "sources: a change that is not committed does not show"
        runs = {"behind": (commits[1], None), "amended": (commits[0], hashes[0]), "unknown": ("ef8166a", hashes[0][::-1])}
        for name, (commit, found) in runs.items():
            told = list(kernels_table.unfounded(folder, [line("x", machine="A 1.2, 3 cores", commit=commit, sources=found)]))
            if len(told) != (name == "unknown"):
                yield f"kernels_table: of a run that is {name} it says {told}"
        if len(list(kernels_table.unfounded(folder, [line("x", machine="A, 3 cores", commit=commits[1])]))) != 1:
            yield "kernels_table: a machine without its model has a name"


PARITY_TEST = """#include "kernels/ops/y.h"
Floats run(const Case& c) {
  REQUIRE(y(ctx, c));
}

TEST_CASE("y: near the reference") {
  REQUIRE(largest_difference(run(c), expected) <= tolerance(s.columns, 1.0));
}

TEST_CASE("y: what does not fit is refused") {
  REQUIRE(y(ctx, wrong).error().code == ErrorCode::invalid_argument);
}

TEST_CASE("z: another's bits") {
  REQUIRE(same_bits(a, b));
}
"""

BENCHED = """  bench_beside(bench, {.name = fmt::format("{} forward", kind)}, [&] {});
  for (const Kind& kind : {Kind{"gelu", 1}, Kind{"silu", 2}}) run(kind);
  r.row("column sums", [&] {});
"""


def cases_by_source():
    """One line a fault in which names op_catalogue.py takes for the benchmark's."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "ops/bench/kernels_rows.cc")
        path.parent.mkdir(parents=True)
        path.write_text(BENCHED)
        cases = op_catalogue.possible_cases(pathlib.Path(folder))
        for name, there in {"^gelu forward": True, "^column sums 8192x3072": True, "^gelu backward": False, "column sum 8": False}.items():
            if any(re.search(name, case) for case in cases) != there:
                yield f"op_catalogue: \"{name}\" is {'not ' if there else ''}found among {cases}"


def tolerances_by_test():
    """One line a fault in what tested_tolerances.py takes for a test of an op."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "tests/parity/deep/y_test.cc")
        path.parent.mkdir(parents=True)
        path.write_text(PARITY_TEST)
        for column, wanted in {"C": "", "exact": "no test of tests/parity", "C, mean of terms": "no test of tests/parity",
                               "by eye": "no row of WORDS"}.items():
            found = list(tested_tolerances.untested(pathlib.Path(folder), {"y": column}))
            if len(found) != (wanted != "") or any(wanted not in line for line in found):
                yield f"tested_tolerances: of \"{column}\" it says {found}"


GOLDEN_TESTS = ['Golden golden("image " + std::string(name)); x(ctx);',
                'Golden golden("y"); Golden states(std::string(name) + ", states"); y(ctx);']
GOLDEN_FILE = ["image bf16, version 1", "image q8_0, version 1", "y", "y, states", "y of others"]
# (op, a name of a row that it is said to have) -> what is wrong with it.
GOLDEN_NAMES = {
    ("y", "y"): "",
    ("y", "y, states"): "",
    ("y", "y of"): "no row",
    ("y", "y of others"): "no test that calls it",
    ("x", "image bf16"): "no row",
    ("x", "image bf16, version 1"): "",
    ("y", "image bf16, version 1"): "no test that calls it",
    ("x", "image {format}, version 1"): "no row \"image nf4, version 1\"",
}


def golden_by_name():
    """One line a fault in which golden rows count for an op: those of its own names in full, made by a test that calls it."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, op_catalogue.FILLS["{format}"][0])
        path.parent.mkdir(parents=True)
        path.write_text("".join(f'    case WeightFormat::{name}: return "{name}";\n' for name in ("bf16", "nf4", "q8_0")))
        for (op, name), wanted in GOLDEN_NAMES.items():
            found = list(op_catalogue.bits_of(pathlib.Path(folder), op, (name,), GOLDEN_FILE, GOLDEN_TESTS))
            if len(found) != (wanted != "") or any(wanted not in line for line in found):
                yield f"op_catalogue: of {op}'s row \"{name}\" it says {found}"


def goals_by_place():
    """One line a fault in how goals are judged: by the worst case, by path, in full, beside all peers that they name."""
    three = ("blis", "onednn", "pytorch")
    places = kernels_table.judged([
        *(line("gpt2 up nt 1024x3072x768", share=0.93, peer=peer, ratio=ratio) for peer, ratio in zip(three, (1.5, 0.9, 2.0))),
        line("gpt2 64 nt 64x768x768", share=0.5, peer="blis", ratio=2.0),
        line("bf16 native gpt2 up nt 1024x3072x768", share=0.1, peer="onednn", ratio=0.1),
        line("four rows over one, q4_k 11008x4096", peer="one row", ratio=0.5, peer_min=1.0, peer_p50=2.0),
        line("four rows over one, q4_k 11008x4096", "avx2", peer="one row", ratio=0.6),
        line("four rows over one, nf4 3072x768", "avx2", peer="one row", ratio=0.6),
        line("sgd 124439808", share=1.1),
        line("all-to-all of 64 MiB, 2 ranks, each way", None, gbps=3.5, min=0.7, bench="training/links")])
    judged = list(kernels_goals.judged(places))
    found = {(j.goal.name, j.place): (round(j.low, 2), j.met, j.of, j.all) for j in judged}
    one, two, links = "A, avx512, 1 thread", "A, avx2, 1 thread", "A, 1 thread"
    wanted = {("fp32", one): (0.93, 1, 1, 1), ("fp32-64", one): (0.5, 0, 1, 1), ("fp32-peers", one): (0.9, 0, 1, 1),
              ("bf16", one): (0.1, 0, 1, 1), ("four", one): (2.0, 0, 1, 2), ("four", two): (1.67, 2, 2, 2), ("rings", links): (3.5, 1, 1, 1)}
    found = {(name, links if place.startswith("A") and name == "rings" else place): row for (name, place), row in found.items()}
    if found != wanted:
        yield f"kernels_goals: judged {found}, not {wanted}"
    if any(j.disturbed != (j.goal.name == "rings" or (j.goal.name, j.place) == ("four", one)) for j in judged):
        yield "kernels_goals: a median far above its minimum, ours or a peer's, is not marked, or another is"
    # All cases of a goal that is missed, and those that another place has.
    told = list(kernels_misses.told(pathlib.Path("/nowhere"), places))
    figures = [text.split(maxsplit=1) for text in told if text.startswith("    ")]
    if ["2.00", "four rows over one, q4_k 11008x4096 (disturbed)"] not in figures or ["-", "four rows over one, nf4 3072x768 (not measured there)"] not in figures:
        yield f"kernels_misses: told {told}"
    if any("four rows" in text and text.split()[0] == "1.67" for text in told) or not any(text.startswith(f"four, {one}: 1 of 1 miss <= 1.3") for text in told):
        yield f"kernels_misses: a case that meets its goal is among them, or a goal without its line: {told}"
    # Goals are measured in full on each of their paths or missed: "four" has one of two cases on avx512.
    unmeasured = {(goal.name, path) for goal, path in kernels_goals.unmeasured(places)}
    measured = {("fp32", "avx512"), ("fp32-64", "avx512"), ("fp32-peers", "avx512"), ("four", "avx2"), ("rings", "")}
    if unmeasured != {(goal.name, path) for goal in kernels_goals.GOALS for path in goal.paths} - measured:
        yield f"kernels_goals: {unmeasured} are measured nowhere"
    for name in (goal.name for goal in kernels_goals.GOALS):
        if sum(goal.name == name for goal in kernels_goals.GOALS) != 1:
            yield f"kernels_goals: {name} names two goals"


CAUSES = {
    "four | ^A, avx512 | q4_k | c | arithmetic": ["four is missed"],
    "four | ^A, avx512 | nf4 | c | (inference) arithmetic": ["no miss has this cause"],
    "four | ^A, avx512 | . | c | arithmetic": ["four is missed", "fits any case"],
    "four | ^A, avx512 | .* | c | arithmetic": ["four is missed", "fits any case"],
    "four | ^A, avx512 | q4_k | c | not taken apart": ["four is missed", "is no cause"],
    "share | ^A | ^sgd | c | two streams": ["the share is above"],
}


def causes_by_miss():
    """One line a fault in which causes the lint takes, of a goal that is missed and a share above the ceiling."""
    places = kernels_table.judged([line("four rows over one, q4_k 11008x4096", peer="one row", ratio=0.5), line("sgd 124439808", share=1.1)])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, kernels_goals.CAUSES)
        path.parent.mkdir(parents=True)
        path.write_text("# none\n")
        def told():
            return [text for text in kernels_goals.without_cause(pathlib.Path(folder), places) if "not measured" not in text]
        none = told()
        for cause, changes in CAUSES.items():
            path.write_text(cause + "\n")
            found = told()
            differ = [text for text in none if text not in found] + [text for text in found if text not in none]
            if len(differ) != len(changes) or any(not any(change in text for text in differ) for change in changes):
                yield f"kernels_goals: \"{cause}\" changes {differ}, not {changes}"


HANDED = "Result<> y(const OpContext& ctx, const Y& args) {\n  return ctx.device->enqueue(args);\n}\n"
TAKEN = "Result<> CudaDevice::enqueue(const Y& args) {\n  launch(args);\n}\n"
# What an op's text, the GPU's and the list are: what the rule `cuda` says of it.
HANDS = {
    "nothing of a device": ("Result<> y(const OpContext& ctx, const Y& args) {\n  return run(args);\n}\n", TAKEN, "",
                            "y has no CUDA version"),
    "another call of the device": (HANDED.replace("enqueue(args)", "synchronize()"), TAKEN, "", "y has no CUDA version"),
    "the device's name alone": (HANDED.replace("ctx.device->enqueue(args)", "{}; // ctx.device->enqueue"), TAKEN, "",
                                "y has no CUDA version"),
    "another op's arguments": (HANDED.replace("(args)", "(X{args})"), TAKEN, "", "y has no CUDA version"),
    "a device that lacks it": (HANDED, "", "", "y has no CUDA version"),
    "a device that refuses it": (HANDED, TAKEN.replace("launch(args)", 'return not_on_device("y: all")'), "",
                                 "y has no CUDA version"),
    "a line too many": (HANDED, TAKEN, "y  a reason\n", "y has a CUDA version, and a line"),
    "a line of no op": (HANDED, TAKEN, "z  a reason\n", "z is no op"),
    "all": (HANDED, TAKEN, "", None),
    "all, made in place": (HANDED.replace("(args)", "(Y{args})"), TAKEN, "", None),
    "all, by a form": (HANDED.replace("(args)", "(ProductForm::nt, args)"),
                       TAKEN.replace("(const", "(ProductForm form, const"), "", None),
    "a line of an op without": (HANDED.replace("enqueue(args)", "synchronize()"), TAKEN, "y  a reason\n", None),
}


def ops_by_device():
    """One line a fault in which ops have a CUDA version."""
    for case, (op, device, listed, said) in HANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            files = {"ops/y.h": FAULTS["cuda"][1], "ops/without_cuda.txt": listed, "cpu/y.cc": op, "cuda/y.cu": device}
            for name, text in files.items():
                path = pathlib.Path(folder, "kernels", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            found = [line for line in lint(folder).stdout.splitlines() if ": cuda: " in line]
            if len(found) != (said is not None) or (said and said not in found[0]):
                yield f"cuda: {case}: {found}, not {said}"


def lint(root):
    return subprocess.run([sys.executable, str(LINT), str(root)], capture_output=True, text=True)


def main():
    failed = [*shares_by_case(), *cases_by_source(), *lines_by_place(), *runs_by_commit(), *tolerances_by_test(), *golden_by_name(),
              *goals_by_place(), *causes_by_miss(), *ops_by_device()]
    for rule, (name, content) in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True)
            path.write_text(content)
            result = lint(folder)
            if result.returncode != 1 or f": {rule}: " not in result.stdout:
                failed.append(f"{rule}: not found in {name}:\n{result.stdout}{result.stderr}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "kernels/cuda/x.cu")
        path.parent.mkdir(parents=True)
        atomics = ["atomicAdd(at, 1.0F);", "atomicMax(at, value);", 'asm("red.global.add.f32 [%0], %1;");',
                   'asm("atom.shared.add.noftz.bf16x2 %0;");', "cuda::atomic_ref<float> sum(*at);"]
        path.write_text("\n".join(atomics) + "\n")
        if lint(folder).stdout.count(": atomics: ") != len(atomics):
            failed.append("atomics: not all are found:\n" + lint(folder).stdout)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "jobs/data")
        path.mkdir(parents=True)
        (path / "f.h").write_text("// One.\n#pragma once\n")
        (path / "f.cc").write_text("#include <vector>\n")
        if ": own-header: " not in lint(folder).stdout:
            failed.append("own-header: not found")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "kernels/ops")
        path.mkdir(parents=True)
        (path.parent / "README.md").write_text("# Kernels\n")
        (path / "without_cuda.txt").write_text("y  a reason\n")
        pathlib.Path(folder, "tests/golden").mkdir(parents=True)
        pathlib.Path(folder, op_catalogue.GOLDEN_ROWS).write_text("8c9d01b860acbafd49365629df1d2018 adamw of nobody\n")
        # A weight's maker is an op too, whatever it gives.
        (path / "y.h").write_text("// Y.\n#pragma once\nResult<Y> y(const OpContext& ctx, const Z& args);\n")
        said = lint(folder).stdout
        for text in ("y has no row in FACTS", "y has no bits in", "y has no counter"):
            if f"kernels/ops/y.h:1: catalogue: {text}" not in said:
                failed.append(f"catalogue: not found: {text}")
        if f"{op_catalogue.GOLDEN_ROWS}:1: catalogue: \"adamw of nobody\" belongs to no op" not in said:
            failed.append("catalogue: a golden row of no op is not found")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "kernels/cuda/good.cu")
        path.parent.mkdir(parents=True)
        path.write_text("  atomicAdd(digits + (order >> 8 & 255U), 1U);  // no atomicAdd(a, b)\n")
        path = pathlib.Path(folder, "jobs/data/good.h")
        path.parent.mkdir(parents=True)
        path.write_text('// One.\n#pragma once\n\n#include "kernels/ops/x.h"\n')
        result = lint(folder)
        if result.returncode != 0:
            failed.append("a clean tree has findings:\n" + result.stdout)
    print("\n".join(failed) if failed else f"{len(FAULTS) + 1} rules find their fault")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The table of ops/gpu/report from ptxas' words: kernel, registers, static shared memory, stack frame, bytes spilled.

    report.py [--check] FILE...
"""

import re
import subprocess
import sys

# What runs in every layer, step or token: no spills, and no stack frame (bytes) but those of FRAMES.
HOT = {
    "activation_backward", "activation_backward_sums", "activation_forward", "adafactor_squares", "adafactor_sums", "adafactor_update", "adamw", "adamw8", "add_into", "add_norm_pieces", "add_pieces", "attend", "attention_mma", "blend", "channel_product", "choose",
    "column_codes", "column_pieces", "cross_entropy", "decode", "deltas", "embedding_bf16", "embedding_forward", "exact_product",
    "integer_product", "key_gradients", "key_gradients_mma", "kv_write", "layer_norm_backward", "layer_norm_forward",
    "lion", "merge_parts", "muon_momentum", "muon_update", "piece_sum", "product_ends", "quantised_nn",
    "query_gradients", "query_gradients_mma", "rms_norm_backward", "rms_norm_forward", "rotary_apply", "round_activations",
    "round_rows", "row_codes", "schedule_free", "sgd", "silu_gate_backward", "silu_gate_forward", "turn",
}
FRAMES = {
    # The hash's eight accumulators, which its rounds index.
    **dict.fromkeys(("adafactor_update", "adamw", "adamw8", "lion", "muon_update", "schedule_free", "sgd"), 64),
    "piece_sum": 128,  # pieces are added in an order that comes as data
}

BUILD_SECONDS = 8 * 60 * 2  # eight minutes of two cores


def kernel_name(mangled):
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=False).stdout.strip()
    return re.sub(r"\w+::", "", re.sub(r"\(.*", "", name.replace("(anonymous namespace)::", "")))


def entries(text):
    """(name, registers, shared, stack, spilled) of each kernel; the largest, where it is compiled more than once."""
    found = {}
    for entry in re.split(r"Compiling entry function '", text)[1:]:
        def number(pattern):
            match = re.search(pattern, entry)
            return int(match.group(1)) if match else 0
        row = (number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame"),
               number(r"(\d+) bytes spill stores"))
        mangled = entry.split("'", 1)[0]
        found[mangled] = max(found.get(mangled, row), row)
    return sorted((kernel_name(mangled), *row) for mangled, row in found.items())


def base_of(name):
    """adamw of "void adamw_kernel<4, true>"."""
    return name.split("<")[0].split()[-1].removesuffix("_kernel")


def problems(rows):
    out = []
    for name, _, _, stack, spilled in rows:
        base = base_of(name)
        if base not in HOT:
            continue
        if spilled > 0:
            out.append(f"{name} spills {spilled} bytes")
        elif stack > FRAMES.get(base, 0):
            out.append(f"{name} has a stack frame of {stack} bytes")
    out += [f"{name}: no such kernel" for name in sorted(HOT - {base_of(row[0]) for row in rows})]
    return out


def too_slow(texts):
    """What is wrong with the seconds of one core that the files took: each says its own (ops/gpu/logged), whoever compiled it."""
    took = [[float(seconds) for seconds in re.findall(r"^compiled in ([\d.]+) s$", text, re.MULTILINE)] for text in texts]
    if not any(took):
        return []  # compiled by ops/gpu/report itself, all in one file
    total = sum(sum(times) for times in took)
    print(f"nvcc: {len(texts)} files, {total:.0f} s of a core's time, {max(max(times, default=0) for times in took):.0f} of them the longest")
    silent = sum(len(times) != 1 for times in took)
    out = [f"{silent} files do not say what they took"] if silent else []
    if total > BUILD_SECONDS:
        out.append(f"nvcc took longer than {BUILD_SECONDS} s of a core's time")
    return out


def main():
    files = [argument for argument in sys.argv[1:] if argument != "--check"]
    texts = [open(file, encoding="utf-8").read() for file in files]
    rows = entries("".join(texts))
    print(f"{'kernel':44} {'registers':>9} {'shared':>7} {'stack':>6} {'spilled':>8}")
    for name, registers, shared, stack, spilled in rows:
        print(f"{name:44} {registers:9} {shared:7} {stack:6} {spilled:8}")
    bad = problems(rows)
    print(f"{len(rows)} kernels, {len(HOT)} of them hot; {'; '.join(bad) if bad else 'none of those spills or has a frame'}")
    slow = too_slow(texts)
    if slow:
        print("; ".join(slow))
    bad += slow
    return 1 if bad and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

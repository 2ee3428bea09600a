"""The table of ops/gpu/report from ptxas' words: kernel, registers, static shared memory, bytes spilled."""

import re
import subprocess
import sys

# A kernel that runs once a step over little data may spill; these may not.
HOT = re.compile(r"attend|gradients_kernel|adamw|cross_entropy|rms_norm|silu|rotary|mma|decode|tree_sum")


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    rows = []
    for entry in re.split(r"Compiling entry function '", text)[1:]:
        mangled = entry.split("'", 1)[0]
        name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=False).stdout.strip()
        name = re.sub(r"\(.*", "", name.replace("(anonymous namespace)::", "")).split("::")[-1]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", entry)
        registers = re.search(r"Used (\d+) registers", entry)
        shared = re.search(r"(\d+) bytes smem", entry)
        stack = re.search(r"(\d+) bytes stack frame", entry)
        rows.append((name, int(registers.group(1)), int(shared.group(1)) if shared else 0,
                     int(stack.group(1)) if stack else 0, int(spills.group(1)) if spills else 0))
    print(f"{'kernel':44} {'registers':>9} {'shared':>7} {'stack':>6} {'spilled':>8}")
    for name, registers, shared, stack, spilled in sorted(rows):
        print(f"{name:44} {registers:9} {shared:7} {stack:6} {spilled:8}")
    bad = [row[0] for row in rows if row[4] > 0 and HOT.search(row[0])]
    print(f"{len(rows)} kernels, {len(bad)} hot ones spill{': ' + ', '.join(bad) if bad else ''}")
    return 1 if bad and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The lint finds what it is there to find: a tree with one fault of each rule, and a clean one."""

import pathlib
import subprocess
import sys
import tempfile

import op_catalogue

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
    "int8 product 64x11008x4096": "product_int8",
    "quantised q4_k 3072x768 rows 1": "product_quantised",
    "silu gate forward 8192x3072": "silu_gate_forward",
    "gate forward 8192x3072": "gate_forward",
    "adamw with hash 25165824": "adamw_update",
    "adamw8 25165824": "adamw8_update",
}


def shares_by_case():
    """One line a case whose share is not its op's, or also another's."""
    for case, op in CASES.items():
        line = [{"case": case, "share": 0.5}]
        found = [name for name, facts in op_catalogue.FACTS.items() if op_catalogue.share_of(line, facts[3])]
        if found != [op]:
            yield f"catalogue: {case} is counted for {found}, not for {op}"


def lint(root):
    return subprocess.run([sys.executable, str(LINT), str(root)], capture_output=True, text=True)


def main():
    failed = list(shares_by_case())
    for rule, (name, content) in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True)
            path.write_text(content)
            result = lint(folder)
            if result.returncode != 1 or f": {rule}: " not in result.stdout:
                failed.append(f"{rule}: not found in {name}:\n{result.stdout}{result.stderr}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "jobs/data")
        path.mkdir(parents=True)
        (path / "f.h").write_text("// One.\n#pragma once\n")
        (path / "f.cc").write_text("#include <vector>\n")
        if ": own-header: " not in lint(folder).stdout:
            failed.append("own-header: not found")
    with tempfile.TemporaryDirectory() as folder:
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

#!/usr/bin/env python3
"""The lint finds what it is there to find: a tree with one fault of each rule, and a clean one."""

import pathlib
import subprocess
import sys
import tempfile

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
    "name": ("jobs/data/utils.cc", "int x;\n"),
}


def lint(root):
    return subprocess.run([sys.executable, str(LINT), str(root)], capture_output=True, text=True)


def main():
    failed = []
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

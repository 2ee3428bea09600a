#!/usr/bin/env python3
"""ops/gpu/pack: what it makes is small, and its programs run where nothing of this machine is theirs but the C library and
CUDA's own: in a bare environment, from another folder, with the loader saying what it loads.

    tests/emulation/gpu_pack_test.py ROOT BUILD
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1]).resolve()
BUILD = pathlib.Path(sys.argv[2]).resolve()
BYTES_MAX = 64 << 20
# Of the machine that it is taken to.
FOREIGN = re.compile(r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libcublasLt|libnccl|libcuda|"
                     r"libnvidia-.*)\.so\.[\d.]+")
# A program, and words with which it says something and ends, GPU or not.
PROGRAMS = {"parity_gpu": ["--list-tests"], "device_gpu": ["--list-tests"], "gpu_bench": ["--names"], "tutti": ["--version"],
            "tutti-rank-cuda": ["devices"]}


def loaded_by(program, words):
    """What the loader began to use, by path; the program's own output."""
    done = subprocess.run([str(program), *words], env={"LD_DEBUG": "libs"}, cwd="/", text=True, capture_output=True,
                          timeout=60, check=False)
    return set(re.findall(r"calling init: (\S+)", done.stderr)), done


def main():
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, "made")
        pack = [str(ROOT / "ops/gpu/pack"), str(made), str(BUILD)]
        said = subprocess.run(pack, text=True, capture_output=True, check=True).stdout
        moved = made.rename(pathlib.Path(folder, "moved"))
        size = sum(file.stat().st_size for file in moved.rglob("*"))
        if size > BYTES_MAX:
            failed.append(f"{size} bytes")
        if sorted(PROGRAMS) != sorted(file.name for file in (moved / "bin").iterdir()):
            failed.append("other programs than those that are tried here")
        if any(file.is_symlink() for file in moved.rglob("*")):
            failed.append("a link, which a copy may lose")
        for name, words in PROGRAMS.items():
            libraries, done = loaded_by(moved / "bin" / name, words)
            if not libraries or done.returncode == 127:
                failed.append(f"{name} does not start: {done.stderr[-300:]}")
            others = [path for path in libraries
                      if pathlib.Path(path).parent.resolve() != (moved / "lib").resolve()
                      and not FOREIGN.fullmatch(pathlib.Path(path).name)
                      and pathlib.Path(path).resolve() != (moved / "bin" / name).resolve()]
            if others:
                failed.append(f"{name} loads {others}")
        needs = (moved / "glibc").read_text().strip()
        if not re.fullmatch(r"2\.\d+(\.\d+)?", needs) or f"needs GLIBC {needs}," not in said:
            failed.append(f"it needs glibc {needs!r}, and says: {said}")
        # Nobody's folder is taken for a pack and removed.
        other = pathlib.Path(folder, "other")
        other.mkdir()
        refused = subprocess.run([pack[0], str(other), pack[2]], text=True, capture_output=True, check=False)
        if refused.returncode != 1 or not other.is_dir():
            failed.append("a folder that is no pack was taken for one")
    print("\n".join(failed) if failed else said.strip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

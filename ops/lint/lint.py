#!/usr/bin/env python3
"""House rules as a test: folder dependencies, where a third-party library may be met, sizes, words.

    ops/lint/lint.py [ROOT]      exit 0: clean; 1: findings, one a line as `file:line: rule: text`

An exemption is a row of EXEMPT with its reason.
"""

import pathlib
import re
import subprocess
import sys

import op_catalogue

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import kernels_goals  # noqa: E402
import kernels_table  # noqa: E402

# Folder -> folders that it may include from, besides itself. The longest matching folder decides.
MAY_INCLUDE = {
    "protocol/base": [],
    "protocol/spec": ["protocol/base"],
    "protocol/wire": ["protocol/base"],
    "protocol/actor": ["protocol/base"],
    "protocol/transport": ["protocol/base", "protocol/wire", "protocol/actor"],
    "coordinator": ["protocol", "coordinator"],
    "worker": ["protocol", "worker"],
    "kernels": ["protocol/base", "kernels"],
    "jobs": ["protocol/base", "protocol/spec", "kernels", "jobs"],
    "jobs/rank": ["protocol/base", "protocol/spec", "protocol/wire", "protocol/actor", "protocol/transport",
                  "kernels", "jobs"],
    "ops/cli": ["protocol", "coordinator", "worker", "ops/cli"],
    "ops/bench": ["protocol/base", "protocol/wire", "kernels", "jobs", "coordinator", "ops/bench"],
    "tests": [""],
}

# Third-party headers -> folders that may include them.
THIRD_PARTY = {
    r"yaml-cpp/": ["protocol/spec"],
    r"zmq": ["protocol/transport"],
    r"sqlite3": ["coordinator/ledger"],
    r"boost/beast": ["coordinator/api", "coordinator/gateway"],
    r"boost/asio": ["protocol/actor", "protocol/transport", "coordinator", "worker", "ops/cli"],
    r"msgpuck": ["protocol/wire"],
    r"nccl": ["kernels/collective"],
    r"cuda": ["kernels/cuda"],
    r"hwy/": ["kernels"],
    r"hwloc": ["kernels/tensor", "worker/inventory"],
    r"pcre2": ["jobs/tokenizers"],
    r"CLI/": ["ops/cli", "jobs"],
}

# Files of pure state machines: time, chance and the outside reach them in messages only, which is what lets the simulator
# replay a run from its seed.
PURE = re.compile(r"coordinator/(cluster|life|membership|scheduler)/|(coordinator|worker|jobs)/.*_state\.(h|cc)$")
IMPURE = re.compile(r"#\s*include\s+<(random|ctime|time\.h|sys/.*|unistd\.h|fstream|thread|mutex|boost/asio.*)>|"
                    r'#\s*include\s+"protocol/(base/(file|log)|actor/.*|transport/.*)\.h"|'
                    r"\b(monotonic_now|wall_now|random_hex|random_device|getenv|\w+_clock::now)\b")

LINE_MAX = 100
SIZE_MAX = {".h": 300, ".cc": 600, ".cu": 500}
MAIN_MAX = 100
FUNCTION_MAX = 70
FOLDER_MAX = 25
CMAKE_ROOT_MAX = 80

BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "types"}
BANNED_TEXT = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|for now\b|not implemented", re.IGNORECASE)

# (path, rule) -> reason
EXEMPT = {
    # Included once per instruction set by Highway's foreach_target, with guards that follow its toggle.
    ("kernels/cpu/exp-inl.h", "header"): "",
    ("kernels/cpu/lanes-inl.h", "header"): "",
    ("kernels/cpu/scalar-inl.h", "header"): "",
    ("kernels/cpu/product/chain_tile-inl.h", "header"): "",
    ("kernels/cpu/product/tile-inl.h", "header"): "",
    # Whole ops, by their lines.
    ("kernels/ops/random_fill.cc", "forms"): "",
    # Weights of attention in bf16 profiles: kernels/README.md, the rules that keep bits.
    ("kernels/cuda/tensor_core.h", "libm"): "",
}


def files(root):
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True,
                            text=True)
    names = listed.stdout.splitlines() if listed.returncode == 0 else [
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in names if (root / name).is_file())


def folder_rule(table, name):
    folders = [folder for folder in table if name == folder or name.startswith(folder + "/")]
    return max(folders, key=len) if folders else None


def check_includes(name, lines):
    own = folder_rule(MAY_INCLUDE, name)
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quote, included = match.groups()
        if quote == '"' and own is not None and "/" in included:
            allowed = MAY_INCLUDE[own] + [own]
            if not any(prefix == "" or included.startswith(prefix + "/") for prefix in allowed):
                yield number, "dependency", f"{own} must not include {included}"
        if quote == "<":
            for pattern, folders in THIRD_PARTY.items():
                if re.match(pattern, included) and not any(name.startswith(folder + "/") for folder in folders):
                    if not name.startswith("tests/"):
                        yield number, "third-party", f"<{included}> is met in {', '.join(folders)} only"


def check_sizes(name, lines):
    suffix = pathlib.PurePath(name).suffix
    limit = MAIN_MAX if name.endswith("/main.cc") else SIZE_MAX.get(suffix)
    if limit and len(lines) > limit:
        yield len(lines), "size", f"{len(lines)} lines; the limit is {limit}"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_MAX:
            yield number, "width", f"{len(line)} columns; the limit is {LINE_MAX}"


def check_functions(name, lines):
    """A function is a line at column 0 that opens a brace; it ends at the next line that is a brace at column 0."""
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and re.match(r"[A-Za-z_~].*\)[^;]*\{$", line) and not line.startswith(("namespace", "struct",
                                                                                                 "class", "enum")):
            start = number
        elif start is None and re.match(r"[A-Za-z_].*\($|[A-Za-z_].*,$", line):
            continue
        elif start is not None and line.startswith("}"):
            if number - start + 1 > FUNCTION_MAX and "TEST_CASE" not in lines[start - 1]:
                yield start, "function", f"{number - start + 1} lines; the limit is {FUNCTION_MAX}"
            start = None


def check_words(name, lines):
    if name.startswith("ops/lint/"):
        return
    for number, line in enumerate(lines, 1):
        match = BANNED_TEXT.search(line)
        if match:
            yield number, "words", f'"{match.group(0)}": finish it, or say what is so and why'


def check_pure(name, lines):
    if not PURE.match(name):
        return
    for number, line in enumerate(lines, 1):
        match = IMPURE.search(line)
        if match and not line.lstrip().startswith("//"):
            yield number, "pure", f"a state machine has no {match.group(0)}: it comes in a message"


# Sums whose order follows the library's mood (DESIGN numerics): ranks gather, and add in the tree's order themselves.
LIBRARY_SUMS = re.compile(r"\bp?nccl(AllReduce|ReduceScatter|Reduce|RedOpCreatePreMulSum)\w*\s*\(")


def check_sums(name, lines):
    for number, line in enumerate(lines, 1):
        match = LIBRARY_SUMS.search(line)
        if match:
            yield number, "sums", f"nccl{match.group(1)} adds in an order of its own: gather, then sum by the tree"


# On a GPU, who comes first is chance, so of numbers that round each run would add another way. An integer shows in what is
# added; another atomic on integers is a row of EXEMPT.
ATOMICS = re.compile(r"\batomic[A-Z]\w*\s*\(|\batomic_ref\b|\b(red|atom)\.[\w.:]*\.b?f\d+")
ATOMIC_COUNT = re.compile(r"\batomicAdd\s*\(.*, \d+U?L?L?\)")


def check_atomics(name, lines):
    if not name.startswith("kernels/cuda/"):
        return
    for number, line in enumerate(lines, 1):
        code = line.split("//")[0]
        match = ATOMICS.search(code)
        if match and not ATOMIC_COUNT.search(code):
            yield number, "atomics", f"{match.group(0)}: sums of numbers go in one order; counts add an integer literal"


# What a C library, or a GPU's, makes of these is its own (DESIGN numerics): kernels have elementary.h.
LIBM = re.compile(r"(?:\bstd::|(?<![\w.>:]))_*(exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|sin|cos|tan|tanh|erf|erfc)f?\s*\(|"
                  r"\b(ex2|lg2|sin|cos|tanh)\.approx")


def check_libm(name, lines):
    if not name.startswith("kernels/cuda/"):
        return
    for number, line in enumerate(lines, 1):
        match = LIBM.search(line.split("//")[0])
        if match:
            yield number, "libm", f"{match.group(0)}: another library has other bits; take those of kernels/cuda/elementary.h"


def check_header(name, lines):
    if not any(line.strip() == "#pragma once" for line in lines):
        yield 1, "header", "#pragma once is missing"
    if not lines or not lines[0].startswith("//"):
        yield 1, "header", "opens with a comment that says what it is"


def check_own_header(root, name, lines):
    """A source includes its own header first, which proves that the header compiles alone."""
    own = str(pathlib.PurePath(name).with_suffix(".h"))
    if not (root / own).exists():
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
        if match:
            if match.group(1) != own:
                yield number, "own-header", f"include {own} first"
            return


def check_tree(root, names):
    sources = {}
    for name in names:
        path = pathlib.PurePath(name)
        if path.suffix in SIZE_MAX:
            sources.setdefault(str(path.parent), []).append(name)
            if path.stem in BANNED_NAMES:
                yield name, 1, "name", f'"{path.stem}" says nothing; name what is in it'
    for folder, inside in sources.items():
        if len(inside) > FOLDER_MAX:
            yield folder, 1, "folder", f"{len(inside)} sources; the limit is {FOLDER_MAX}"
    root_cmake = root / "CMakeLists.txt"
    if root_cmake.exists() and len(root_cmake.read_text().splitlines()) > CMAKE_ROOT_MAX:
        yield "CMakeLists.txt", 1, "size", f"more than {CMAKE_ROOT_MAX} lines"


# Ops that are no launch on a device: what of it they use instead.
BY_COPIES = {"clear": "zero", "pack_rows": "upload", "pack_weight": "upload"}
ENQUEUED = re.compile(r"ctx\.device->enqueue\((?:ProductForm::\w+, )?(\w+)([{)])")


def enqueued_types(body):
    """Of what an op's text hands to its context's device: a structure made in place, or a name that it declares."""
    for word, end in ENQUEUED.findall(body):
        if end == "{":
            yield word
        else:
            yield from re.findall(rf"\bconst (\w+)& {word}\b", body)


def device_has(kernels, kind):
    """Whether the GPU's own text for it does more than refuse."""
    bodies = re.findall(rf"^Result<> CudaDevice::enqueue\((?:ProductForm \w+, )?const {kind}&.*?^}}", kernels, re.M | re.S)
    return any(not re.match(r"[^{]*\{\s*return (?:not_on_device\(|Error\{)", body) for body in bodies)


def check_ops(root, names):
    """An op hands its checked arguments to the context's device, which takes them, or a list says that no GPU has it yet."""
    without = op_catalogue.without_cuda(root)

    def text_of(name):
        return (root / name).read_text(encoding="utf-8", errors="replace")

    sources = "\n".join(text_of(name) for name in names if name.startswith("kernels/") and name.endswith(".cc"))
    kernels = "\n".join(text_of(name) for name in names if re.match(r"kernels/cuda/.*\.(cc|cu)$", name))
    declared = set(op_catalogue.CONTEXT_FREE)
    for name in names:
        if not re.fullmatch(r"kernels/ops/(?!reference/)(?:\w+/)?\w+\.h", name):
            continue
        for number, line in enumerate(text_of(name).splitlines(), 1):
            match = re.match(r"Result<[^(]*> (\w+)\(const OpContext& ctx", line)
            if not match:
                continue
            op = match.group(1)
            declared.add(op)
            body = "\n".join(re.findall(rf"^Result<[^(\n]*> {op}\(\s*const OpContext& ctx.*?^}}", sources, re.M | re.S))
            kinds = list(enqueued_types(body))
            has = any(device_has(kernels, kind) for kind in kinds) or (
                op in BY_COPIES and f"ctx.device->{BY_COPIES[op]}(" in body)
            if op in without and has:
                yield name, number, "cuda", f"{op} has a CUDA version, and a line of {op_catalogue.WITHOUT_CUDA}"
            elif op not in without and not has:
                yield name, number, "cuda", (f"{op} has no CUDA version: hand it to ctx.device->enqueue, for which "
                                             f"kernels/cuda has a text, or add a line to {op_catalogue.WITHOUT_CUDA}")
    for op in sorted(without - declared):
        yield op_catalogue.WITHOUT_CUDA, 1, "cuda", f"{op} is no op of kernels/ops"


REFUSED_FORM = re.compile(r"not_on_device\(\s*((?:\"[^\"]*\"\s*)+)")
# Behind a look at the device, within its block or to the end of what follows an early return.
OWN_WORDS = re.compile(r"ctx\.device != nullptr\) \{[^}]*?ErrorCode::unsupported|"
                       r"if \(!?ctx\.device[^{;]*\) return Error\{ErrorCode::unsupported")


def check_forms(root, names):
    """What ops refuse on a device is listed, in the words of the refusal."""
    listed = op_catalogue.forms_without_cuda(root)
    known = dict(op_catalogue.ops_of(root))
    refused = set()
    for name in names:
        if not re.match(r"kernels/(cpu|ops|cuda)/.*\.(cc|cu|h)$", name):
            continue
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        for match in REFUSED_FORM.finditer(text):
            words = "".join(re.findall(r'"([^"]*)"', match.group(1)))
            refused.add(words)
            if words not in listed:
                yield name, text[:match.start()].count("\n") + 1, "forms", f"\"{words}\": no line of {op_catalogue.WITHOUT_CUDA}"
        for match in OWN_WORDS.finditer(text):
            yield name, text[:match.end()].count("\n") + 1, "forms", "a form that a device refuses: say it by not_on_device"
    for words, (ops, _) in listed.items():
        if words not in refused or any(op not in known for op in ops):
            yield op_catalogue.WITHOUT_CUDA, 1, "forms", f"\"{words}\": nothing refuses it, or no such op"


def findings(root):
    names = files(root)
    yield from check_tree(root, names)
    if "kernels/README.md" in names and op_catalogue.current(root) is False:
        yield "kernels/README.md", 1, "catalogue", "the table of ops is not current: ops/lint/op_catalogue.py --write"
    if "kernels/README.md" in names:
        for name, text in op_catalogue.holes(root):
            yield name, 1, "catalogue", text
    if "kernels/README.md" in names and kernels_table.current(root) is False:
        yield "kernels/README.md", 1, "catalogue", "the measured tables are not: ops/bench/kernels_table.py --write"
    for text in kernels_table.faults(root) if "kernels/README.md" in names else []:
        yield kernels_goals.CAUSES, 1, "catalogue", text
    yield from check_ops(root, names)
    yield from check_forms(root, names)
    for name in names:
        suffix = pathlib.PurePath(name).suffix
        if suffix not in SIZE_MAX:
            continue
        lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        checks = [check_includes, check_sizes, check_functions, check_words, check_pure, check_sums, check_atomics, check_libm] + ([check_header] if suffix == ".h" else [])
        for check in checks:
            for number, rule, text in check(name, lines):
                yield name, number, rule, text
        if suffix in (".cc", ".cu"):
            for number, rule, text in check_own_header(root, name, lines):
                yield name, number, rule, text


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent.parent).resolve()
    count = 0
    for name, number, rule, text in findings(root):
        # Files included once per instruction set have guards that follow Highway's toggle.
        if (name, rule) in EXEMPT or (rule == "header" and name.endswith("-inl.h")):
            continue
        print(f"{name}:{number}: {rule}: {text}")
        count += 1
    if count:
        print(f"lint: {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

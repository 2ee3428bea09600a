"""Whether the tests of tests/parity compare an op as the catalogue's column of tolerances says.

A test of an op is a TEST_CASE that calls it, itself or by functions of its file and of the headers of tests/parity that it
includes. Each word of the column stands for what such tests have in their text (WORDS); a column that a change of a
test leaves behind is a finding of the lint.
"""

import re

BITS = r"\bsame_bits\(|\bsame_sums\(|\bgolden\b"
# What the column says -> what the tests of the op have in their text: each of these at least once.
WORDS = {
    "exact": [BITS],
    "bits": [BITS],
    "chain bits": [BITS],
    "tree bits": [BITS],
    "its bits": [BITS],
    "1": [r"\btolerance\(1,"],
    "2": [r"\btolerance\(2,"],
    "4": [r"\btolerance\(4,"],
    "C": [r"\btolerance\((\w+\.)?columns,"],
    "V": [r"\btolerance\((columns|kColumns),"],
    "K": [r"\btolerance\(weight\.inputs,"],
    "steps": [r"\btolerance\(20( \* kSteps)?,"],
    "own steps": [r"\btolerance\(0,"],
    "rows + columns": [r"\btolerance\(4 \* \(s\.rows \+ s\.columns\),"],
    "tokens + 2 D": [r"\btolerance\(c\.tokens\(\),", r"2\.0 \* \(tolerance\(c\.shape\.head_width,"],
    "C + V": [r"\btolerance\(c\.width \+ c\.vocabulary,"],
    "C/16, doubles": [r"\bdouble_tolerance\(77 / 16,"],
    "mean of terms": [r"\bmean_tolerance\("],
    "activation": [r"\bactivation_tolerance\("],
    "half a code": [r"\bkHalfCode\b"],
    "range of its polynomial": [r"\bsquares_of_polynomial\("],
}


def blocks(text):
    """(head, body) of what stands at the left edge: functions, structs, tests, constants."""
    head, body = "", None
    for line in text.splitlines():
        if body is not None:
            if line.startswith("}"):
                yield head, "\n".join(body)
                head, body = "", None
            else:
                body.append(line)
        elif not line.strip() or line.startswith(("#", "//", "namespace", "}", "using")):
            head = ""
        else:
            head += " " + line.strip()
            if line.endswith("{"):
                body = []
            elif line.endswith((";", "}")):
                yield head, head
                head = ""


def tests_of(path, root):
    """The text of each TEST_CASE of a file with all that it calls there."""
    text = path.read_text()
    sources = [text]
    for name in re.findall(r'#include "(tests/parity/\w+\.h)"', text):
        if (root / name).exists() and not name.endswith("/harness.h"):
            sources.append((root / name).read_text())
    cases, named = [], {}
    for head, body in (block for source in sources for block in blocks(source)):
        if head.strip().startswith("TEST_CASE"):
            cases.append(body)
            continue
        names = (re.findall(r"\b(?:struct|class) (\w+) [{:]", head) or re.findall(r"(\w+)\(", head) or
                 re.findall(r"(\w+)(?:\[\w*\])? *[={]", head))
        for name in names[:1]:
            named.setdefault(name, []).append(body)
    for body in cases:
        whole, waiting, seen = "", [body], set()
        while waiting:
            part = waiting.pop()
            whole += part + "\n"
            for word in set(re.findall(r"\w+", part)) & named.keys() - seen:
                seen.add(word)
                waiting.extend(named[word])
        yield whole


def untested(root, columns):
    """Of {op: column}, one line for each op whose tests do not compare it so."""
    texts = [text for path in sorted((root / "tests/parity").rglob("*.cc")) for text in tests_of(path, root)]
    for op, column in columns.items():
        own = [text for text in texts if re.search(rf"\b{op}\(", text)]
        words = [column] if column in WORDS else re.split(", | or ", column)
        for word in words:
            if word not in WORDS:
                yield f"{op}: no row of WORDS in ops/lint/tested_tolerances.py says what \"{word}\" is"
            elif not all(any(re.search(pattern, text) for text in own) for pattern in WORDS[word]):
                yield f"{op}: no test of tests/parity compares it by \"{word}\", as its tolerance is said to be"

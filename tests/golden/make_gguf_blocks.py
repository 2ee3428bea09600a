#!/usr/bin/env python3
"""Makes gguf_blocks.txt: random blocks of each GGUF format and the values that the `gguf` package (PyPI) reads in them.

  python3 -m pip install gguf; python3 tests/golden/make_gguf_blocks.py > tests/golden/gguf_blocks.txt

A line: format, the bytes of a row of 256 inputs in hexadecimal, the bits of its 256 values in hexadecimal.
"""
import numpy
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

INPUTS = 256
# Offsets of the f16 scales in a block.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q5_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

random = numpy.random.default_rng(1)
for name, offsets in HALVES.items():
    kind = GGMLQuantizationType[name]
    inputs, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (INPUTS // inputs, size), dtype=numpy.uint8)
    for offset in offsets:
        scales = (random.uniform(-0.1, 0.1, blocks.shape[0])).astype(numpy.float16)
        blocks[:, offset:offset + 2] = scales.view(numpy.uint8).reshape(-1, 2)
    values = quants.dequantize(blocks.reshape(1, -1), kind).astype(numpy.float32).reshape(-1)
    assert values.size == INPUTS and numpy.isfinite(values).all()
    print(name.lower(), blocks.tobytes().hex(), values.astype(">f4").tobytes().hex())

#!/usr/bin/env python3
"""Models in the layouts of fp8, GPTQ and AWQ checkpoints against the same models in fp32, through the tools.

    tests/golden/stored_layouts.py BIN_FOLDER

Writes small models twice: as codes, by the layouts' public descriptions, and as the fp32 values that those codes stand for,
worked out here. `tutti score` and `tutti generate` must give the same text of both, to the last digit.
"""
import array
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

WIDTH, HEADS, KV_HEADS, INNER, VOCABULARY = 64, 2, 1, 160, 64
TOKENS = [5, 9, 2, 60, 33, 17, 8, 41]
MATRICES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (160, 64), "mlp.up_proj": (160, 64), "mlp.down_proj": (64, 160),
}


def fp32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def half(number):
    return struct.unpack("<e", struct.pack("<e", number))[0]


def tensor(dtype, shape, numbers):
    kind = {"F32": "f", "F16": "e", "I32": "I", "F8_E4M3": "B", "F8_E5M2": "B"}[dtype]
    return dtype, list(shape), struct.pack(f"<{len(numbers)}{kind}", *numbers)


def fp8_number(dtype, code):
    bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    exponent, mantissa = (code & 127) >> bits, (code & ((1 << bits) - 1)) / (1 << bits)
    size = mantissa * 2.0 ** (1 - bias) if exponent == 0 else (1 + mantissa) * 2.0 ** (exponent - bias)
    return -size if code >= 128 else size


def fp8(dtype, height, width, suffix):
    """A scale for `height` outputs by `width` inputs; None: all of them."""
    last = 126 if dtype == "F8_E4M3" else 123
    size = 1e-3 if dtype == "F8_E4M3" else 1e-5

    def write(draw, name, outputs, inputs):
        tall, wide = height or outputs, width or inputs
        shape = (-(-outputs // tall), -(-inputs // wide))
        scales = [fp32(size * draw.uniform(0.5, 2)) for _ in range(shape[0] * shape[1])]
        codes = [draw.randrange(2) * 128 + draw.randrange(last + 1) for _ in range(outputs * inputs)]
        values = [fp32(scales[i // inputs // tall * shape[1] + i % inputs // wide] * fp8_number(dtype, code))
                  for i, code in enumerate(codes)]
        return {f"{name}.weight": tensor(dtype, (outputs, inputs), codes),
                f"{name}.weight{suffix}": tensor("F32", shape if width or height else (), scales)}, values

    return {"quant_method": "fp8", "weight_block_size": [height, width] if width else None}, write


def pack(rows, bits, order):
    """Rows of numbers as words, 32 / bits of them a word; order[j] is which of them nibble j holds."""
    count = 32 // bits
    return [sum(row[first + order[j]] << (bits * j) for j in range(count)) for row in rows for first in range(0, len(row), count)]


def grouped(draw, groups, outputs, bits, symmetric):
    scales = [[half(draw.uniform(0.002, 0.02) * 16 / 2 ** bits) for _ in range(outputs)] for _ in range(groups)]
    middle = 2 ** (bits - 1)
    zeros = [[middle if symmetric else draw.randrange(1, 2 ** bits) for _ in range(outputs)] for _ in range(groups)]
    return scales, zeros


def gptq(bits, group, act_order, symmetric, checkpoint_format):
    def write(draw, name, outputs, inputs):
        size = inputs if group == -1 else group
        groups = -(-inputs // size)
        scales, zeros = grouped(draw, groups, outputs, bits, symmetric)
        owner = [k // size for k in range(inputs)]
        if act_order:
            draw.shuffle(owner)
        codes = [[draw.randrange(2 ** bits) for _ in range(outputs)] for _ in range(inputs)]
        natural = range(32 // bits)
        less = 0 if checkpoint_format == "gptq_v2" else 1
        # Inputs are packed: a column of codes is a row of words.
        columns = pack([[codes[k][o] for k in range(inputs)] for o in range(outputs)], bits, natural)
        words = len(columns) // outputs
        values = [fp32(scales[owner[k]][o] * (codes[k][o] - zeros[owner[k]][o])) for o in range(outputs) for k in range(inputs)]
        return {f"{name}.qweight": tensor("I32", (words, outputs), [columns[o * words + w] for w in range(words) for o in range(outputs)]),
                f"{name}.qzeros": tensor("I32", (groups, outputs * bits // 32),
                                         pack([[zero - less for zero in row] for row in zeros], bits, natural)),
                f"{name}.scales": tensor("F16", (groups, outputs), [s for row in scales for s in row]),
                f"{name}.g_idx": tensor("I32", (inputs,), owner)}, values

    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": symmetric,
            "checkpoint_format": checkpoint_format}, write


def awq(group):
    def write(draw, name, outputs, inputs):
        size = inputs if group == -1 else group
        groups = -(-inputs // size)
        scales, zeros = grouped(draw, groups, outputs, 4, False)
        codes = [[draw.randrange(16) for _ in range(outputs)] for _ in range(inputs)]
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        values = [fp32(scales[k // size][o] * (codes[k][o] - zeros[k // size][o])) for o in range(outputs) for k in range(inputs)]
        return {f"{name}.qweight": tensor("I32", (inputs, outputs // 8), pack(codes, 4, order)),
                f"{name}.qzeros": tensor("I32", (groups, outputs // 8), pack(zeros, 4, order)),
                f"{name}.scales": tensor("F16", (groups, outputs), [s for row in scales for s in row])}, values

    return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}, write


FORMS = {
    f"fp8 {dtype} {label}": fp8(dtype, *cut)
    for dtype in ("F8_E4M3", "F8_E5M2")
    for label, cut in {"whole": (None, None, "_scale"), "outputs": (1, None, "_scale"), "blocks": (128, 128, "_scale_inv")}.items()
} | {
    f"gptq of {bits} bits, groups of {group}{', act order' if act else ''}, {'sym' if symmetric else 'asym'}, {version}":
        gptq(bits, group, act, symmetric, version)
    for bits, group, act, symmetric, version in (
        (4, 32, False, True, "gptq"), (4, 32, True, False, "gptq"), (4, -1, False, False, "gptq"), (4, 128, True, True, "gptq_v2"),
        (8, 32, False, True, "gptq"), (8, 32, True, False, "gptq_v2"), (8, -1, False, False, "gptq"))
} | {f"awq, groups of {group}": awq(group) for group in (32, 64, -1)}


def write_folder(folder, tensors, config):
    folder.mkdir()
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))


def write_tokens(path):
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({len(TOKENS)},), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.array("H", TOKENS).tobytes())


def models(form, seed):
    """The tensors as codes and as fp32, and both configurations."""
    quantization, write = form
    draw = random.Random(seed)
    plain = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,),
             "model.layers.0.input_layernorm.weight": (WIDTH,), "model.layers.0.post_attention_layernorm.weight": (WIDTH,)}
    codes, values = {}, {}
    for name, shape in plain.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        codes[name] = values[name] = tensor("F32", shape, [fp32(draw.uniform(-0.5, 0.5)) for _ in range(count)])
    for name, shape in MATRICES.items():
        full = f"model.layers.0.{name}"
        tensors, numbers = write(draw, full, *shape)
        codes.update(tensors)
        values[f"{full}.weight"] = tensor("F32", shape, numbers)
    config = {"model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS,
              "num_key_value_heads": KV_HEADS, "intermediate_size": INNER, "vocab_size": VOCABULARY,
              "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    stored = {key: value for key, value in quantization.items() if value is not None}
    return (codes, config | {"quantization_config": stored}), (values, config)


def said(tool, verb, folder, tokens, *more):
    run = subprocess.run([tool, verb, folder, "--tokens", tokens, "--threads", "2", "-o", "json", *more],
                         capture_output=True, text=True, timeout=60, check=False)
    if run.returncode != 0:
        raise SystemExit(f"tutti {verb} of {folder.name}: {run.stderr.strip()}")
    return run.stdout


def differs(tool, form, seed):
    """What the tools say otherwise of the codes than of the values; empty: nothing."""
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        tokens = root / "tokens.npy"
        write_tokens(tokens)
        codes, values = models(form, seed)
        write_folder(root / "codes", *codes)
        write_folder(root / "values", *values)
        for verb, more in (("score", ()), ("generate", ("--greedy", "--max", "12"))):
            wanted = said(tool, verb, root / "values", tokens, *more)
            for weights in ("auto", "fp32"):
                given = said(tool, verb, root / "codes", tokens, *more, "--weights", weights)
                if given != wanted:
                    return f"{verb} --weights {weights}: {given.strip()[:300]}, not {wanted.strip()[:300]}"
    return ""


def main():
    tool = pathlib.Path(sys.argv[1]) / "tutti"
    wrong = []
    for seed, (name, form) in enumerate(FORMS.items()):
        difference = differs(tool, form, seed)
        print(f"{'FAILED' if difference else 'same'}: {name}{': ' if difference else ''}{difference}", flush=True)
        if difference:
            wrong.append(name)
    # A wrong scale shows.
    quantization, write = FORMS["fp8 F8_E4M3 outputs"]
    def spoiled(draw, name, outputs, inputs):
        tensors, values = write(draw, name, outputs, inputs)
        return tensors, [-values[0]] + values[1:]
    if not differs(tool, (quantization, spoiled), 0):
        wrong.append("a weight of another sign is not seen")
    if wrong:
        raise SystemExit(f"{len(wrong)} wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

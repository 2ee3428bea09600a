#!/usr/bin/env python3
"""Makes the reference files of tests/golden/llama with PyTorch and Transformers.

    pip install torch transformers safetensors numpy
    python tests/golden/make_llama.py

Each folder is a tiny model with random weights as Transformers saves it, and `expected.safetensors`: token ids (as F32), the
logits that Transformers gives in fp32, and for one model the losses, gradient norms and first gradients of ten steps of
PyTorch's AdamW. The tests read only these files.
"""

import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent / "llama"
SHAPE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=80,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    initializer_range=0.2,  # large, so that logits and attention are far from uniform
    bos_token_id=1,
    eos_token_id=2,
)
# With heads of 8 the wave lengths are 6, 63, 628 and 6,283 positions: one is kept, one is on the ramp, two are stretched.
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=72,
)
STEPS, SAMPLES, LENGTH = 10, 4, 24
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
DECAY, CLIP = 0.1, 1.0


def make_model(**settings):
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **settings})).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms are born as ones, which would hide a missing weight
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def save(model, name, shard_size="1GB", dtype=torch.float32):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # A copy: a cast would also round the model's rotary table.
    copy.deepcopy(model).to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def logits_of(folder, tokens):
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(tokens[None]).logits[0].contiguous()


def train(model, batches):
    """Ten steps of AdamW with decay on matrices only. Returns losses, norms and the first step's gradients."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=DECAY), dict(params=others, weight_decay=0.0)], **ADAMW
    )
    losses, norms, first = [], [], {}
    for batch in batches:
        optimizer.zero_grad()
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        if not first:
            first = {f"gradient.{n}": p.grad.clone() for n, p in model.named_parameters()}
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses), torch.stack(norms), first


def write(folder):
    tokens = torch.randint(0, SHAPE["vocab_size"], (96,))
    expected = {"tokens": tokens.float(), "logits": logits_of(folder, tokens)}
    save_file(expected, folder / "expected.safetensors")


def main():
    torch.manual_seed(20240)
    torch.set_num_threads(1)

    tied = make_model(tie_word_embeddings=True)
    write(save(tied, "tied"))
    rounded = make_model(tie_word_embeddings=False, head_dim=16, num_key_value_heads=1)
    write(save(rounded, "bf16", dtype=torch.bfloat16))
    scaled = make_model(tie_word_embeddings=False, rope_parameters=LLAMA3)
    write(save(scaled, "llama3", shard_size="40KB"))

    batches = torch.randint(0, SHAPE["vocab_size"], (STEPS, SAMPLES, LENGTH + 1))
    for name, model in (("tied", tied), ("llama3", scaled)):
        losses, norms, first = train(model, batches)
        extra = {"losses": losses, "norms": norms, "batches": batches.float()}
        save_file({**extra, **first}, HERE / name / "training.safetensors")
    settings = dict(ADAMW, decay=DECAY, clip=CLIP, steps=STEPS, samples=SAMPLES, length=LENGTH)
    (HERE / "training.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main()

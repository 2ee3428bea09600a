#!/usr/bin/env python3
"""Makes the reference files of tests/golden/gpt2 with PyTorch and Transformers.

    pip install torch transformers safetensors numpy
    python tests/golden/make_gpt2.py

`tied` is a tiny model with random weights as Transformers saves it, with `expected.safetensors`: token ids (as F32) and the
logits that Transformers gives in fp32; and `training.safetensors`: losses, gradient norms and first gradients of ten steps of
PyTorch's AdamW, as of make_llama.py. `short_names` is a model whose activation is exact and whose tensors are named as in the
oldest files, without `transformer.`. The tests read only these files.
"""

import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

import make_llama

HERE = pathlib.Path(__file__).parent / "gpt2"
SHAPE = dict(
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=96,
    vocab_size=80,
    initializer_range=0.2,  # large, so that logits and attention are far from uniform
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=1,
    eos_token_id=2,
)


def make_model(**settings):
    model = GPT2LMHeadModel(GPT2Config(**{**SHAPE, **settings})).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # born as ones and zeros, which would hide one that is left out
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def write(model, name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(0, SHAPE["vocab_size"], (96,))
    with torch.no_grad():
        logits = model(tokens[None]).logits[0].contiguous()
    save_file({"tokens": tokens.float(), "logits": logits}, folder / "expected.safetensors")
    return folder


def main():
    torch.manual_seed(20241)
    torch.set_num_threads(1)
    tied = make_model()
    folder = write(tied, "tied")
    batches = torch.randint(0, SHAPE["vocab_size"], (make_llama.STEPS, make_llama.SAMPLES, make_llama.LENGTH + 1))
    losses, norms, first = make_llama.train(tied, batches)
    extra = {"losses": losses, "norms": norms, "batches": batches.float()}
    save_file({**extra, **first}, folder / "training.safetensors")

    folder = write(make_model(activation_function="gelu", n_inner=48), "short_names")
    file = folder / "model.safetensors"
    save_file({name.removeprefix("transformer."): value for name, value in load_file(file).items()}, file,
              metadata={"format": "pt"})


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks that a model directory or checkpoint of ours is what Transformers makes of it.

    tutti score DIR --tokens F.npy -o json > scores.json
    python tests/golden/check_transformers.py DIR --tokens F.npy --scores scores.json

Loads DIR in Transformers (fp32), computes the log-probability of tokens 1..n-1 given what precedes, and compares with the
`logprobs` of scores.json. Exit code 0: the largest difference is within fp32 rounding; 1: it is not.
"""

import argparse
import json

import numpy
import torch
from transformers import AutoModelForCausalLM


def logprobs_of(folder, tokens):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(tokens[None]).logits[0, :-1]
    return torch.log_softmax(logits, -1).gather(1, tokens[1:, None])[:, 0].double()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--tokens", required=True, help=".npy of token ids")
    parser.add_argument("--scores", required=True, help="output of tutti score -o json")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of a log-probability")
    args = parser.parse_args()

    with open(args.scores, encoding="utf-8") as file:
        ours = torch.tensor(json.load(file)["logprobs"], dtype=torch.float64)
    tokens = torch.from_numpy(numpy.load(args.tokens).astype(numpy.int64))
    theirs = logprobs_of(args.folder, tokens)
    if len(ours) != len(theirs):
        raise SystemExit(f"{len(ours)} log-probabilities for {len(theirs)} predicted tokens")
    worst = (ours - theirs).abs().max().item()
    verdict = "same within rounding" if worst <= args.tolerance else "DIFFERENT"
    print(f"{len(theirs)} tokens, largest difference {worst:.3g}: {verdict}")
    raise SystemExit(0 if worst <= args.tolerance else 1)


if __name__ == "__main__":
    main()

"""The jobs that the cluster of three hosts runs, and what must be true of them afterwards."""

import pathlib
import random

WORDS = ("the river and stone of morning walked light under great people mountain spoke kingdom against went house water "
         "a voice before day servant their land from heard").split()


def write_prose(path, words=6000):
    draw = random.Random(7)
    path.write_text("".join(draw.choice(WORDS) + (".\n" if i % 11 == 10 else " ") for i in range(words)))
    return path


def training(text, ranks, steps, every=25, infrastructure=1000, more=""):
    return (f"name: tiny\nkind: train\n"
            f"model: {{family: llama, layers: 2, width: 64, heads: 4, kv_heads: 2, vocabulary: 300}}\n"
            f"data: {{text: [{text}], sequence: 32}}\n"
            f"train: {{steps: {steps}, batch: 8, seed: 3}}\n"
            f"parallel: {{data: {ranks}, shards: 8}}\n"
            f"resources: {{ranks: {{min: {ranks}, max: {ranks}}}, threads: 1, policy: spread}}\n"
            f"checkpoint: {{every: {every}, keep: 2}}\n"
            f"retries: {{infrastructure: {infrastructure}}}\n{more}")


def program(lines, pause=0.2, more=""):
    """Prints numbered lines; ended before the last one, it is restarted and prints them all again."""
    return ("name: counting\nkind: run\n"
            f"command: [sh, -c, 'for i in $(seq 1 {lines}); do echo line $i; sleep {pause}; done']\n"
            f"retries: {{infrastructure: 1000}}\n{more}")


def gang(ranks):
    script = pathlib.Path(__file__).with_name("gang.py")
    return (f"name: gang\nkind: run\ncommand: [python3, {script}]\n"
            f"resources: {{ranks: {ranks}, policy: spread}}\nretries: {{infrastructure: 1000}}\n")


def array(tasks, lines):
    return program(lines, more=f"array: {{count: {tasks}, at_once: 2}}\n")


def server(model):
    return f"name: served\nkind: serve\nmodel: {{path: {model}}}\nretries: {{infrastructure: 1000}}\n"

"""Writes tokenizer files and their ids for tricky texts, by Hugging Face's tokenizers (PyPI).

    python3 make.py          needs: pip install tokenizers
"""
import json
import os

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))

# Llama 3's and Qwen 2's patterns, as their tokenizer.json give them.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
          r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")

CORPUS = [
    "In the beginning God created the heaven and the earth. And the earth was without form,",
    "and void; and darkness was upon the face of the deep. I'll say they've said it's 12345 things.",
    "Größe, naïve café, déjà vu. Слово и дело. 東京は日本の首都です。 안녕하세요 세계. مرحبا بالعالم",
    "int main() {\n    return 0;\n}\n\n\tfor (int i = 0; i < 100; ++i) {}\n",
    "😀 😃 👩‍👩‍👧‍👦 🇩🇪 ½ ² ① Ⅷ 𝔘𝔫𝔦 e\u0301 \u00e9 \u0915\u094d\u0937",
    "the the the then there these those thing think within withal withhold 1 22 333 4444 55555",
]

TEXTS = [
    "", " ", "  ", "\n", "a", "Hello, world!", "  two  spaces  ", "tabs\tand\n\nnewlines \n x\r\n\r\n",
    "I'll, you've, it's, they'd, WE'RE, 'tis, ''s", "1 12 123 1234 12345 1,000,000.50 ½²①Ⅷ",
    "naïve café Größe", "e\u0301 versus \u00e9; \u1e9b\u0323; \u212b \ufb01", "Слово и дело",
    "東京は日本の首都です。123円", "안녕하세요 세계", "مرحبا بالعالم", "क्ष त्र",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪 x😀y", "<|endoftext|>", "a<|endoftext|>b <|endoftext|>", "<|endoftext", "<|end|><tool> x <tool>",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u0085nel\u000bvt", "\u2028line\u2029par",
    "    indented\n        more\n\n\n", "!!!??? ... --- ((([[[{{{", "snake_case camelCase kebab-case",
    "https://example.com/a?b=c&d=%20#e", "\u0000\u0001\u007f", "x" * 100, "ab" * 60 + " " + "the" * 40,
    " the", "the", "the ", "ſ'ſ 'S 'LL", "\ufeffbom", "\U0010ffff\ue000",
]


def trained(vocabulary, special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def with_merges_as_text(tokenizer):
    """The older form of the file: merges as "a b"."""
    file = json.loads(tokenizer.to_str())
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(file)), json.dumps(file, ensure_ascii=False)


def ignoring_merges(tokenizer):
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    # A token that merges do not reach.
    file["model"]["vocab"]["snake"] = 400
    return Tokenizer.from_str(json.dumps(file))


def main():
    special = ["<|endoftext|>"]
    gpt2 = trained(400, special)
    llama3 = ignoring_merges(gpt2)
    llama3.pre_tokenizer = split(LLAMA3)
    llama3.add_special_tokens(["<|begin|>"])
    llama3.add_tokens([AddedToken("<tool>", normalized=False, lstrip=True, rstrip=True)])
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing("<|begin|> $A", special_tokens=[
            ("<|begin|>", llama3.token_to_id("<|begin|>"))])])
    qwen2 = trained(400, special)
    qwen2.normalizer = normalizers.NFC()
    qwen2.pre_tokenizer = split(QWEN2)
    spaced = trained(320, special)
    spaced.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split("(((", "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=True)])

    compatible = trained(300, special)
    compatible.normalizer = normalizers.NFKC()

    files = {"llama3": llama3, "qwen2": qwen2, "spaced": spaced, "compatible": compatible}
    for name, tokenizer in files.items():
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as file:
            file.write(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False))
    gpt2, text = with_merges_as_text(gpt2)
    files["gpt2"] = gpt2
    with open(os.path.join(HERE, "gpt2.json"), "w", encoding="utf-8") as file:
        file.write(text)
    cases = [{"file": name, "text": text,
              "ids": tokenizer.encode(text, add_special_tokens=False).ids,
              "whole": tokenizer.encode(text).ids}
             for name, tokenizer in files.items() for text in TEXTS]
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    with open(os.path.join(HERE, "corpus.json"), "w", encoding="utf-8") as file:
        json.dump(CORPUS, file)


main()

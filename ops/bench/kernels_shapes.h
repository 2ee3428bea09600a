// Shapes of the products that bench_kernels measures.
#pragma once

#include <fmt/core.h>

#include <string>

#include "ops/bench/kernels_cases.h"

namespace tutti::bench {

// Rows, outputs, inputs of a linear layer.
struct Shape {
  const char* name;
  kernels::Index m, n, k;
};

// Tokens of one micro-batch, and one token or a few of them (decoding).
inline constexpr Shape kShapes[] = {
    {"demo attention", 2048, 192, 192}, {"demo up", 2048, 512, 192},
    {"demo down", 2048, 192, 512},      {"demo head", 256, 2048, 192},
    {"gpt2 attention", 1024, 768, 768}, {"gpt2 up", 1024, 3072, 768},
    {"gpt2 down", 1024, 768, 3072},     {"gpt2 256", 256, 768, 768},
    {"gpt2 64", 64, 768, 768},          {"gpt2 up 64", 64, 3072, 768},
    {"gpt2 16", 16, 3072, 768},         {"demo decode", 1, 512, 192},
    {"gpt2 decode", 1, 3072, 768},      {"gpt2 decode 4", 4, 3072, 768},
    {"gpt2 decode 8", 8, 3072, 768},    {"7b decode", 1, 11008, 4096},
    {"7b decode 4", 4, 11008, 4096},    {"7b 64", 64, 11008, 4096},
    {"7b attention", 512, 4096, 4096},  {"7b up", 512, 11008, 4096},
    {"7b down", 512, 4096, 11008},
};

// Heads, of which training goes through chunks of 256 rows.
inline constexpr Shape kHeads[] = {
    {"gpt2 head", 256, 50257, 768},
    {"7b head", 256, 32000, 4096},
};
// Not in a quick run: GPT-2's padded to whole tiles (train.pad_vocabulary), whose logits it is for,
// and one token's.
inline constexpr Shape kPaddedHead = {"gpt2 padded head", 256, 50304, 768};
inline constexpr Shape kDecodeHead = {"7b head decode", 1, 32000, 4096};

// Batches of products: scores and values of the demo's heads, of GPT-2's and of a 7B layer's.
struct Stack {
  kernels::Index count;
  Shape s;
};
inline constexpr Stack kHeadStacks[] = {
    {48, {"", 256, 256, 32}},
    {48, {"", 256, 256, 64}},
    {8, {"", 512, 512, 128}},
};

// Rows up to which a product is bound by reading its weight.
inline constexpr kernels::Index kFewRows = 32;

// Bytes of a weight, or of a layer's rows, up to which a model stays in a cache.
inline constexpr double kCachedBytes = 4e6;

inline double flops_of(const Shape& s) { return 2.0 * static_cast<double>(s.m * s.n * s.k); }
inline std::string size_of(const Shape& s) { return fmt::format("{}x{}x{}", s.m, s.n, s.k); }
inline Case product_case(const std::string& name, const Shape& s) {
  return {.name = name, .flops = flops_of(s), .bench = "kernels/product"};
}

void bench_bf16(const Bench& bench);

}  // namespace tutti::bench

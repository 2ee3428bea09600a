// What one machine can do at most, measured: the shares that bench_kernels prints are of these.
#pragma once

#include "kernels/tensor/thread_pool.h"

namespace tutti::bench {

struct Bench;

// Multiply-adds of fp32, dot products of bf16 pairs and of int8 quads by the widest instructions
// of the path in use, in 1e9 multiplications and additions a second; 0 where that has none. Without
// VNNI a quad is three instructions, which codes of seven and eight bits cannot use.
double fp32_gflops(kernels::ThreadPool& pool);
double bf16_gops(kernels::ThreadPool& pool);
double int8_gops(kernels::ThreadPool& pool);

// Reading `floats` again and again, GB/s; in huge pages where memory gives them.
enum class Pages { huge, small };
double read_speed(kernels::ThreadPool& pool, kernels::Index floats, Pages pages);

// One line each: arithmetic, and memory read from L2, L3 and beyond, with huge and small pages.
void print_ceilings(const Bench& bench);

}  // namespace tutti::bench

// Random numbers that are a pure function of (seed, purpose, index): Philox 4x32-10 (Salmon et al.
// 2011).
//
// No draw depends on an order, a thread or a rank; the same numbers come out on every machine.
// `purpose` keeps streams apart: an enum value, or the hash of a parameter's name (purpose_of).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t purpose = 0;
};

// FNV-1a of a name.
constexpr std::uint64_t purpose_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  return hash;
}

// Four words of the stream: counter (index, purpose), key seed.
std::array<std::uint32_t, 4> random_words(const RandomKey& key, std::uint64_t index);

// Uniform in [0, 1), 53 bits, number `index` of the stream.
double random_uniform(const RandomKey& key, std::uint64_t index);

// out[i] = mean + deviation * z of element first_index + i, z from the normal distribution (Box &
// Muller 1958, own log, sine and cosine in double precision, rounded once). A range of a larger
// tensor gets the tensor's numbers.
struct FillNormal {
  RandomKey key;
  std::uint64_t first_index = 0;
  double mean = 0.0;
  double deviation = 1.0;
  std::span<float> out;
};
Result<> fill_normal(const OpContext& ctx, const FillNormal& args);

// out[i] uniform in [low, high), computed in double and rounded once to fp32 (which may give high).
struct FillUniform {
  RandomKey key;
  std::uint64_t first_index = 0;
  double low = 0.0;
  double high = 1.0;
  std::span<float> out;
};
Result<> fill_uniform(const OpContext& ctx, const FillUniform& args);

}  // namespace tutti::kernels

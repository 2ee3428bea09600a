#include "kernels/ops/random.h"

namespace tutti::kernels {

namespace {

struct Products {
  std::uint32_t high;
  std::uint32_t low;
};

Products multiply(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t product = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

}  // namespace

// The constants are those of the paper (Salmon et al. 2011, section 4.3).
std::array<std::uint32_t, 4> random_words(const RandomKey& key, std::uint64_t index) {
  std::array<std::uint32_t, 4> c = {
      static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
      static_cast<std::uint32_t>(key.purpose), static_cast<std::uint32_t>(key.purpose >> 32)};
  auto k0 = static_cast<std::uint32_t>(key.seed);
  auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Products a = multiply(0xD2511F53U, c[0]);
    const Products b = multiply(0xCD9E8D57U, c[2]);
    c = {b.high ^ c[1] ^ k0, b.low, a.high ^ c[3] ^ k1, a.low};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

double random_uniform(const RandomKey& key, std::uint64_t index) {
  const auto words = random_words(key, index);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace tutti::kernels

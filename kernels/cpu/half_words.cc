#include "kernels/cpu/half_words.h"

namespace tutti::kernels {

// The rounds of random_words (random.cc) over columns of kDrawsAtOnce counters.
void half_words(const RandomKey& key, std::uint64_t first,
                std::array<std::uint16_t, kHalfWordsAtOnce>& bits) {
  std::uint32_t c[4][kDrawsAtOnce];
  for (std::uint64_t i = 0; i < kDrawsAtOnce; ++i) {
    const std::uint64_t draw = first / kHalfWordsInDraw + i;
    c[0][i] = static_cast<std::uint32_t>(draw);
    c[1][i] = static_cast<std::uint32_t>(draw >> 32);
    c[2][i] = static_cast<std::uint32_t>(key.purpose);
    c[3][i] = static_cast<std::uint32_t>(key.purpose >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(key.seed);
  auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (std::uint64_t i = 0; i < kDrawsAtOnce; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53U} * c[0][i];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * c[2][i];
      const std::uint32_t c1 = c[1][i];
      const std::uint32_t c3 = c[3][i];
      c[0][i] = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
      c[1][i] = static_cast<std::uint32_t>(b);
      c[2][i] = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
      c[3][i] = static_cast<std::uint32_t>(a);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  for (std::uint64_t i = 0; i < kDrawsAtOnce; ++i) {
    for (std::uint64_t word = 0; word < 4; ++word) {
      bits[i * kHalfWordsInDraw + 2 * word] = static_cast<std::uint16_t>(c[word][i]);
      bits[i * kHalfWordsInDraw + 2 * word + 1] = static_cast<std::uint16_t>(c[word][i] >> 16);
    }
  }
}

}  // namespace tutti::kernels

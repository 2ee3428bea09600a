#include "tests/simulation/cluster/rank_world.h"

namespace tutti::simulation {

std::uint64_t next_value(std::uint64_t value, std::uint64_t step,
                         const std::array<int, kShards>& used) {
  std::uint64_t gradient = 0;
  for (std::uint32_t shard = 0; shard < kShards; ++shard) {
    gradient += static_cast<std::uint64_t>(used[shard]) * Rng(step * kShards + shard).next();
  }
  return Rng(value * 31 + gradient).next();
}

std::uint64_t value_at(std::uint64_t step) {
  thread_local std::vector<std::uint64_t> values = {1};
  std::array<int, kShards> once{};
  once.fill(1);
  while (values.size() <= step) {
    values.push_back(next_value(values.back(), values.size(), once));
  }
  return values[step];
}

}  // namespace tutti::simulation

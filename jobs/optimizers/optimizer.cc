#include "jobs/optimizers/optimizer.h"

#include <algorithm>
#include <string>

namespace tutti::optimizers {

std::span<const Optimizer> optimizers() {
  static const Optimizer rows[] = {
      kAdafactor, kAdamW, kAdamW8, kLion, kMuon, kScheduleFree, kSgd,
  };
  return rows;
}

void begin_states(const Optimizer& optimizer, std::span<const float> weights,
                  std::span<const std::span<float>> states) {
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (optimizer.states[i] == optimizer.begins_as_weights) {
      std::ranges::copy(weights, states[i].begin());
    } else {
      std::ranges::fill(states[i], 0.0F);
    }
  }
}

Result<const Optimizer*> find_optimizer(std::string_view name) {
  std::string known;
  for (const Optimizer& row : optimizers()) {
    if (row.name == name) return &row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  return Error{ErrorCode::unsupported,
               "no optimizer \"" + std::string(name) + "\"; there are: " + known};
}

}  // namespace tutti::optimizers

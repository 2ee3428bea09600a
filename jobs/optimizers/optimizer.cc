#include "jobs/optimizers/optimizer.h"

#include <string>

namespace tutti::optimizers {

std::span<const Optimizer> optimizers() {
  static const Optimizer rows[] = {
      kAdafactor, kAdamW, kAdamW8, kLion, kMuon, kSgd,
  };
  return rows;
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

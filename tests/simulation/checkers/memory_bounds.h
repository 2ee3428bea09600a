// How much a coordinator may remember of what is not durable: the rows of I19, apart from who
// looks.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "coordinator/cluster/cluster_views.h"

namespace tutti::simulation {

struct Living {
  std::size_t processes = 0;
  std::size_t jobs = 0;  // that have not ended
  std::size_t workers = 0;
  bool at_rest = false;  // all has ended, and a pass has seen it
};

// The first size beyond its bound, for people; nothing: there is none.
std::optional<std::string> beyond_bounds(const coordinator::SoftSizes& soft, const Living& living);

}  // namespace tutti::simulation

// Serving in a rank: a model directory behind an encrypted endpoint, its requests decoded together.
#pragma once

#include <memory>

#include "jobs/rank/work.h"

namespace tutti::rank {

std::unique_ptr<Work> make_serve_work();

}  // namespace tutti::rank

// The dashboard: `/`, one page over the routes of the HTTP API.
//
// Heavy (coroutines): include from .cc files only.
#pragma once

#include <vector>

#include "coordinator/api/route.h"

namespace tutti::dashboard {

std::vector<api::Route> routes();

}  // namespace tutti::dashboard

// An explanation's lines, as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "coordinator/cluster/cluster_views.h"
#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// Jobs, holders and workers are named up to so many.
inline constexpr std::size_t kListedInLines = 10;

// "5 s", "3 min", "2.5 h": what a reader of one line needs.
std::string span(std::int64_t ms);
// "in 5 s"
std::string in_time(std::int64_t ms);

// Adds the lines of all else that is in it.
void write_lines(const Desk& desk, Explanation& out);

}  // namespace tutti::coordinator

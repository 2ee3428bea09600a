// How fast the GPUs of this machine copy to each other, as the last `tutti check --gpu` measured
// it: kept in the worker's state folder, so that a worker, which measures nothing itself, tells its
// coordinator.
//
// A line counts as long as as many links join the two as when it was measured.
//
//   gpu-links.json   {"links": [{"from": "GPU-...", "to": "GPU-...", "count", "mb_per_s"}, ...]}
//
// Threads: plain functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"
#include "worker/inventory/gpus.h"

namespace tutti::worker {

inline constexpr const char* kMeasuredLinksFile = "gpu-links.json";
// Of a copy that failed: slower than any that works.
inline constexpr std::uint32_t kFailedLinkMbPerS = 1;

struct MeasuredLink {
  std::string from;
  std::string to;
  std::uint32_t count = 0;     // of links that joined the two
  std::uint32_t mb_per_s = 0;  // from the one to the other

  bool operator==(const MeasuredLink&) const = default;
};

std::string print_measured_links(const std::vector<MeasuredLink>& links);
// Errors: corrupt.
Result<std::vector<MeasuredLink>> parse_measured_links(std::string_view text);

// Errors: of the file; not_found: nothing was measured.
Result<std::vector<MeasuredLink>> read_measured_links(const std::filesystem::path& file);

// Where they hold still, into `measured_mb_per_s` of each GPU.
void add_measured_links(GpuInventory& inventory, const std::vector<MeasuredLink>& links);

}  // namespace tutti::worker

// What the ranks of this worker would compute on, asked of the binary that it starts: `tutti-rank
// devices` prints one line of JSON. So the worker needs no CUDA, and hears of the very libraries
// that its ranks will load.
//
//   {"profiles": [...], "stack": "CUDA 13.0, ...", "exchange": "nccl-2.27.3 cuda-13.0 driver-13.0",
//    "devices": [{"uuid", "name", "memory_bytes"}]}
//   {"problem": "no NVIDIA driver is loaded: ..."}
//
// Threads: the main one (it forks). Limits: a deadline.
#pragma once

#include <boost/describe/class.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "protocol/wire/device_state.h"

namespace tutti::worker {

struct RankDevices {
  std::vector<std::string> profiles;  // numerics profiles
  std::string stack;                  // versions, for people
  std::string exchange;               // as in wire::Hello; empty: an older binary
  std::vector<wire::DeviceState> devices;

  bool operator==(const RankDevices&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankDevices, (), (profiles, stack, exchange, devices))

// Errors: unsupported (the problem, one line), corrupt (not such a line).
Result<RankDevices> parse_rank_devices(std::string_view output);

// Errors: those, of starting it, and deadline_exceeded. Of a binary that says nothing of devices
// its last line: the loader's, where a library is missing (unsupported).
Result<RankDevices> ask_rank_devices(const std::filesystem::path& binary,
                                     const std::vector<std::string>& environment,
                                     Duration deadline);

}  // namespace tutti::worker

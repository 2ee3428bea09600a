// What the GPUs that this process sees can do, measured one thing after the other: products as
// training asks the library for them, their memory, copies to and from the host and to each other,
// and all of them exchanging at once.
//
// A GPU, or a link, that is not well may never answer. So each measure is told before it begins and
// once it has ended, and all of them have numbers that depend on the machine alone: whoever reads
// along ends the process that hangs, and lets another one go on behind it.
//
// Threads: the calling one, and one a GPU in the exchange of all. Limits: 3 GiB of a GPU's memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::kernels {

struct DeviceMeasure {
  std::uint32_t number = 0;  // from 1 on
  std::string_view name;
  std::string_view unit;
  std::string uuid;  // of the GPU that computes, or sends; empty: all of them
  std::string peer;  // of the one that receives; empty: none
};

struct DeviceSpeed {
  double value = 0;     // in the measure's unit, of the fastest round
  bool direct = false;  // a copy to a peer: not by way of the host
};

struct DeviceMeasures {
  std::uint32_t after = 0;                // begins behind this one
  std::vector<std::string> without = {};  // GPUs that are left out
  // Some KiB in place of GiB: for tests, where no speed is meant.
  enum class Size { full, small } size = Size::full;
  std::function<void(const DeviceMeasure&)> begins;
  std::function<void(const DeviceMeasure&, const Result<DeviceSpeed>&)> ended;
};

// A measure that fails alone (no memory is left) is told, and the next one begins. Errors: those of
// list_devices; unavailable, of a measure that was told: the process can go on with nothing.
Result<> measure_devices(const DeviceMeasures& measures);

}  // namespace tutti::kernels

// A device as a worker tells of it and the coordinator keeps it.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace tutti::wire {

// A device that a slot stands for.
struct DeviceState {
  std::string uuid;  // how it is leased: its number changes with what is visible
  std::string name;
  std::uint64_t memory_bytes = 0;

  bool operator==(const DeviceState&) const = default;
};
BOOST_DESCRIBE_STRUCT(DeviceState, (), (uuid, name, memory_bytes))

// From one device to another of its machine: what joins them, or was measured between them.
struct DeviceLink {
  std::string uuid;
  std::uint32_t count = 0;     // active ones
  std::uint32_t mb_per_s = 0;  // of a copy, measured; 1: it failed; 0: not measured as they are now

  bool operator==(const DeviceLink&) const = default;
};
BOOST_DESCRIBE_STRUCT(DeviceLink, (), (uuid, count, mb_per_s))

// What the driver tells of a device now; 0 or empty: it does not tell.
struct DeviceReading {
  std::string uuid;
  std::uint64_t memory_free_bytes = 0;
  std::uint32_t temperature_celsius = 0;
  std::uint32_t slowdown_celsius = 0;  // from when on it is slowed down
  std::uint32_t power_limit_watts = 0;
  std::vector<std::string> throttle_reasons = {};  // that hold now
  std::vector<DeviceLink> links = {};
  std::int32_t socket = -1;  // the NUMA node that it hangs on; -1: not told

  bool operator==(const DeviceReading&) const = default;
};
BOOST_DESCRIBE_STRUCT(DeviceReading, (),
                      (uuid, memory_free_bytes, temperature_celsius, slowdown_celsius,
                       power_limit_watts, throttle_reasons, links, socket))

}  // namespace tutti::wire

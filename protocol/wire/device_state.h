// A device as a worker tells of it and the coordinator keeps it.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>

namespace tutti::wire {

// A device that a slot stands for.
struct DeviceState {
  std::string uuid;  // how it is leased: its number changes with what is visible
  std::string name;
  std::uint64_t memory_bytes = 0;

  bool operator==(const DeviceState&) const = default;
};
BOOST_DESCRIBE_STRUCT(DeviceState, (), (uuid, name, memory_bytes))

}  // namespace tutti::wire

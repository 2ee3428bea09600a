#include "jobs/rank/devices_tool.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <cstdio>
#include <utility>

#include "kernels/tensor/open_device.h"

namespace tutti::rank {

namespace json = boost::json;

namespace {

json::object object_of(const kernels::DeviceList& list) {
  json::array devices;
  for (const auto& device : list.devices) {
    devices.push_back(json::object{
        {"uuid", device.uuid}, {"name", device.name}, {"memory_bytes", device.memory_bytes}});
  }
  return {{"profiles", json::array(list.profiles.begin(), list.profiles.end())},
          {"stack", list.stack},
          {"exchange", list.exchange},
          {"devices", std::move(devices)}};
}

}  // namespace

int run_devices_tool(std::span<const std::string>) {
  const auto list = kernels::list_devices();
  const json::object line =
      list ? object_of(*list) : json::object{{"problem", list.error().message}};
  std::printf("%s\n", json::serialize(line).c_str());
  return 0;
}

}  // namespace tutti::rank

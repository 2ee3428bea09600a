#include "jobs/rank/devices_tool.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <cstdio>
#include <string_view>
#include <utility>

#include "jobs/tokenizers/tool_arguments.h"
#include "kernels/tensor/device_measures.h"
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

constexpr std::string_view kHelp =
    "usage: tutti-rank devices [--measure [--after N] [--without UUID]... [--small]]\n";
constexpr int kExitFailed = 3;

// At once: whoever reads along counts the time from here on.
void say(const json::object& line) {
  std::printf("%s\n", json::serialize(line).c_str());
  std::fflush(stdout);
}

json::object begin_of(const kernels::DeviceMeasure& measure) {
  return {{"begins", measure.number},
          {"name", measure.name},
          {"unit", measure.unit},
          {"gpu", measure.uuid},
          {"peer", measure.peer}};
}

json::object end_of(const kernels::DeviceMeasure& measure,
                    const Result<kernels::DeviceSpeed>& speed) {
  if (!speed) return {{"ended", measure.number}, {"problem", speed.error().message}};
  return {{"ended", measure.number}, {"value", speed->value}, {"direct", speed->direct}};
}

}  // namespace

int run_devices_tool(std::span<const std::string> args) {
  bool measure = false;
  bool small = false;
  kernels::DeviceMeasures measures;
  tokenizers::ToolArguments arguments("devices", kHelp);
  arguments.flag("--measure", measure);
  arguments.flag("--small", small);
  arguments.option("--after", measures.after);
  arguments.option("--without", measures.without);
  if (const auto exit = arguments.parse(args)) return *exit;
  const auto list = kernels::list_devices();
  say(list ? object_of(*list) : json::object{{"problem", list.error().message}});
  if (!measure || !list) return tokenizers::kExitOk;
  if (small) measures.size = kernels::DeviceMeasures::Size::small;
  measures.begins = [](const auto& one) { say(begin_of(one)); };
  measures.ended = [](const auto& one, const auto& speed) { say(end_of(one, speed)); };
  return kernels::measure_devices(measures) ? tokenizers::kExitOk : kExitFailed;
}

}  // namespace tutti::rank

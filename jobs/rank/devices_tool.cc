#include "jobs/rank/devices_tool.h"

#include <fmt/core.h>

#include <cstdio>

#include "kernels/tensor/open_device.h"

namespace tutti::rank {

namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const bool plain = static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\';
    out += plain ? std::string(1, c) : fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
  }
  return out + '"';
}

std::string line_of(const kernels::DeviceList& list) {
  std::string profiles;
  for (const std::string& profile : list.profiles) {
    profiles += (profiles.empty() ? "" : ",") + quoted(profile);
  }
  std::string devices;
  for (const auto& device : list.devices) {
    devices +=
        fmt::format(R"({}{{"uuid":{},"name":{},"memory_bytes":{}}})", devices.empty() ? "" : ",",
                    quoted(device.uuid), quoted(device.name), device.memory_bytes);
  }
  return fmt::format(R"({{"profiles":[{}],"stack":{},"devices":[{}]}})", profiles,
                     quoted(list.stack), devices);
}

}  // namespace

int run_devices_tool(std::span<const std::string>) {
  const auto list = kernels::list_devices();
  const std::string line =
      list ? line_of(*list) : fmt::format(R"({{"problem":{}}})", quoted(list.error().message));
  std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace tutti::rank

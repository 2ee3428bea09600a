#include "worker/agent/device_readings.h"

#include <algorithm>

namespace tutti::worker {

namespace {

const Gpu* find_gpu(const GpuInventory& inventory, const std::string& uuid) {
  const auto at = std::find_if(inventory.gpus.begin(), inventory.gpus.end(),
                               [&](const Gpu& gpu) { return gpu.uuid == uuid; });
  return at == inventory.gpus.end() ? nullptr : &*at;
}

// As trouble_of sees a reading again.
Gpu gpu_of(const wire::DeviceReading& reading) {
  Gpu gpu;
  gpu.temperature_celsius = reading.temperature_celsius;
  gpu.slowdown_celsius = reading.slowdown_celsius;
  gpu.throttle_reasons = reading.throttle_reasons;
  return gpu;
}

}  // namespace

std::vector<wire::DeviceReading> readings_of(const GpuInventory& inventory,
                                             const std::vector<wire::DeviceState>& leased) {
  std::vector<wire::DeviceReading> out;
  for (const wire::DeviceState& device : leased) {
    const Gpu* const gpu = find_gpu(inventory, device.uuid);
    if (gpu == nullptr) continue;
    wire::DeviceReading reading{.uuid = gpu->uuid,
                                .memory_free_bytes = gpu->memory_free_bytes,
                                .temperature_celsius = gpu->temperature_celsius,
                                .slowdown_celsius = gpu->slowdown_celsius,
                                .power_limit_watts = gpu->power_limit_watts,
                                .throttle_reasons = gpu->throttle_reasons,
                                .links = {},
                                .socket = gpu->socket};
    for (std::size_t i = 0; i < inventory.gpus.size(); ++i) {
      const auto at = [i](const auto& list) { return i < list.size() ? list[i] : 0; };
      const wire::DeviceLink link{inventory.gpus[i].uuid, at(gpu->nvlinks),
                                  at(gpu->measured_mb_per_s)};
      if (link.count > 0 || link.mb_per_s > 0) reading.links.push_back(link);
    }
    out.push_back(std::move(reading));
  }
  return out;
}

std::vector<std::string> new_troubles(const GpuInventory& inventory,
                                      const std::vector<wire::DeviceReading>& before,
                                      const std::vector<wire::DeviceState>& leased) {
  std::vector<std::string> lines;
  for (const wire::DeviceState& device : leased) {
    const Gpu* const gpu = find_gpu(inventory, device.uuid);
    if (gpu == nullptr || trouble_of(*gpu).empty()) continue;
    const auto old = std::find_if(before.begin(), before.end(),
                                  [&](const auto& reading) { return reading.uuid == device.uuid; });
    if (old != before.end() && !trouble_of(gpu_of(*old)).empty()) continue;
    lines.push_back(gpu->name + " " + gpu->uuid + " is " + trouble_of(*gpu));
  }
  return lines;
}

}  // namespace tutti::worker

// What the driver tells of the devices that this worker leases, as the coordinator is told.
//
// Threads: plain functions.
#pragma once

#include <string>
#include <vector>

#include "protocol/wire/device_state.h"
#include "worker/inventory/gpus.h"

namespace tutti::worker {

// In the order of `leased`; a device that the driver does not tell of is left out. Links are those
// that join it, or were measured (inventory/measured_links.h).
std::vector<wire::DeviceReading> readings_of(const GpuInventory& inventory,
                                             const std::vector<wire::DeviceState>& leased);

// A line for each leased device that is slowed down or hot now and was not `before`.
std::vector<std::string> new_troubles(const GpuInventory& inventory,
                                      const std::vector<wire::DeviceReading>& before,
                                      const std::vector<wire::DeviceState>& leased);

}  // namespace tutti::worker

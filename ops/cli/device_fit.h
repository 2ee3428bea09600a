// Whether the GPUs of a cluster can hold a job, by the estimate of what it takes of each: before
// anything is submitted.
//
// A job for GPUs that does not say `resources.device_memory` asks for it by the estimate, so that
// it is placed where it fits. The estimate is made here, where the spec is written, because the
// coordinator links no models; where it cannot be made (the model is not readable here), the
// job is sent as it is.
//
// Threads: the main thread.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ops/cli/rank_tools.h"
#include "protocol/spec/job_spec.h"

namespace tutti::cli {

// Of all devices that the nodes have told.
struct ClusterDevices {
  std::uint64_t largest_bytes = 0;  // 0: no node has told of one
  std::string largest_node;
  // A node's devices have no size (it is of an earlier version); or none has told of any although
  // it is there for them: its driver may be missing, which a job is to find out.
  bool has_unknown = false;
};
ClusterDevices devices_of(const boost::json::value& nodes);

struct DeviceFit {
  std::optional<DeviceMemory> memory;  // none: it takes no GPU, or the estimate failed
  std::string problem;                 // why that failed; empty: it did not
  ClusterDevices devices;
  bool given = false;                // the spec says resources.device_memory: that counts
  bool filled = false;               // it is by the estimate
  std::vector<std::string> changes;  // where no device is large enough: what was tried, a line each

  // Also where the cluster has no GPU yet.
  bool fits() const {
    return !memory || devices.largest_bytes == 0 || memory->least_bytes <= devices.largest_bytes;
  }
  bool is_refused() const { return !fits() && !given; }
};

// Estimates, and fills in resources.device_memory where it is due. `ask` is ask_device_memory.
using AskMemory = std::function<Result<DeviceMemory>(const spec::JobSpec&)>;
DeviceFit fit_devices(spec::JobSpec& spec, const ClusterDevices& devices, const AskMemory& ask);

// The components, what they are in all, and whether that fits; lines. Empty: nothing to tell.
std::string fit_text(const DeviceFit& fit);
// What is wrong and what to change, in one line; of one that does not fit.
std::string misfit_line(const DeviceFit& fit);
// As a member of a plan.
boost::json::value fit_json(const DeviceFit& fit);

}  // namespace tutti::cli

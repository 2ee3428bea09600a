// The device of this process, by the name that its worker or its user gives it.
//
// Which devices there are is decided where a binary is linked: tutti-rank has none, tutti-rank-cuda
// has GPUs (kernels/cuda).
//
// Errors: unsupported, in one line that says what to do (no driver, too old a driver, no such GPU,
// a build without GPUs), invalid_argument (not a device's name).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor/device.h"

namespace tutti::kernels {

// What products read their inputs as, and in bf16 attention too; sums, weights and all else are
// fp32. fp8 is bf16, but for products that say so (ops/product.h).
enum class Precision { fp32, bf16, fp16, tf32, fp8 };

// "cpu": null, which is no error; "gpu", "gpu:INDEX" or "gpu:UUID" among those that the process
// sees.
Result<std::unique_ptr<Device>> open_device(std::string_view name,
                                            Precision precision = Precision::fp32);

// What this process sees, without opening it.
struct DeviceList {
  struct Entry {
    std::string uuid;  // "GPU-..."
    std::string name;
    std::uint64_t memory_bytes = 0;
  };
  std::vector<Entry> devices;
  std::vector<std::string> profiles;  // numerics profiles, the same on all of them
  std::string stack;                  // versions of what drives them, for people
  std::string exchange;  // what they exchange by, with its version, alike in all ranks of a group
};
Result<DeviceList> list_devices();

}  // namespace tutti::kernels

// The device of this process, by the name that its worker or its user gives it.
//
// Which devices there are is decided where a binary is linked: tutti-rank has none, tutti-rank-cuda
// has GPUs (kernels/cuda).
//
// Errors: unsupported, in one line that says what to do (no driver, too old a driver, no such GPU,
// a build without GPUs), invalid_argument (not a device's name).
#pragma once

#include <memory>
#include <string_view>

#include "kernels/tensor/device.h"

namespace tutti::kernels {

// "cpu": null, which is no error; "gpu" or "gpu:INDEX" among those that the process sees.
Result<std::unique_ptr<Device>> open_device(std::string_view name);

}  // namespace tutti::kernels

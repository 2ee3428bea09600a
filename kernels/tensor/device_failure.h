// A device that failed for good (unavailable), that has nothing for what an op asks (unsupported),
// or that was misused (internal), to whoever runs the computing thread: thrown where a pass is too
// deep in its layers to hand an error up. Whose failure it is the error's code says.
#pragma once

#include <exception>
#include <utility>

#include "protocol/base/result.h"

namespace tutti::kernels {

class DeviceFailure final : public std::exception {
 public:
  explicit DeviceFailure(Error error) : error_(std::move(error)) {}
  const Error& error() const noexcept { return error_; }
  const char* what() const noexcept override { return error_.message.c_str(); }

 private:
  Error error_;
};

}  // namespace tutti::kernels

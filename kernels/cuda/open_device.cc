#include "kernels/tensor/open_device.h"

#include <charconv>
#include <string>

#include "kernels/cuda/device.h"

namespace tutti::kernels {

Result<std::unique_ptr<Device>> open_device(std::string_view name) {
  if (name == "cpu") return std::unique_ptr<Device>();
  int index = 0;
  const std::string_view prefix = "gpu:";
  const bool numbered = name.starts_with(prefix);
  const char* const end = name.data() + name.size();
  const char* const begin = name.data() + (numbered ? prefix.size() : name.size());
  const auto read = std::from_chars(begin, end, index);
  if ((!numbered && name != "gpu") || (numbered && (read.ec != std::errc() || read.ptr != end))) {
    return Error{ErrorCode::invalid_argument,
                 "device " + std::string(name) + ": it is cpu, gpu or gpu:INDEX"};
  }
  auto device = cuda::CudaDevice::open({.index = index});
  if (!device) return std::move(device).error();
  return std::unique_ptr<Device>(*std::move(device));
}

}  // namespace tutti::kernels

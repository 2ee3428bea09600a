// A build without GPUs.
#include <string>

#include "kernels/tensor/device_measures.h"
#include "kernels/tensor/open_device.h"

namespace tutti::kernels {

namespace {

Error no_device(std::string_view name) {
  return {ErrorCode::unsupported, "device " + std::string(name) +
                                      ": this is tutti-rank without GPUs; build with CUDA and "
                                      "use tutti-rank-cuda, or take device: cpu"};
}

}  // namespace

Result<std::unique_ptr<Device>> open_device(std::string_view name, Precision) {
  if (name == "cpu") return std::unique_ptr<Device>();
  return no_device(name);
}

Result<DeviceList> list_devices() { return no_device("gpu"); }
Result<> measure_devices(const DeviceMeasures&) { return no_device("gpu"); }

}  // namespace tutti::kernels

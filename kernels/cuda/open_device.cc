#include "kernels/tensor/open_device.h"

#include <fmt/core.h>

#include <charconv>
#include <string>

#include "kernels/collective/nccl_group.h"
#include "kernels/cuda/device.h"
#include "protocol/base/cache_folder.h"

namespace tutti::kernels {

namespace {

constexpr std::string_view kPrefix = "gpu:";

cuda::Products::Inputs inputs_for(Precision precision) {
  using Inputs = cuda::Products::Inputs;
  switch (precision) {
    case Precision::fp32: return Inputs::fp32;
    case Precision::bf16: return Inputs::bf16;
    case Precision::fp16: return Inputs::fp16;
    case Precision::tf32: return Inputs::tf32;
    case Precision::fp8: return Inputs::fp8;
  }
  return Inputs::fp32;
}

Error not_a_device(std::string_view name) {
  return {ErrorCode::invalid_argument,
          fmt::format("device {}: it is cpu, gpu, gpu:INDEX or gpu:UUID", name)};
}

Result<int> index_of_uuid(std::string_view uuid) {
  auto count = cuda::count_devices();
  if (!count) return count;
  for (int index = 0; index < *count; ++index) {
    cudaDeviceProp properties;
    TUTTI_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    if (cuda::uuid_text(properties.uuid) == uuid) return index;
  }
  return Error{ErrorCode::unavailable,
               fmt::format("GPU {} was leased, and is not among the {} that this process sees",
                           uuid, *count)};
}

Result<int> index_of(std::string_view name) {
  if (name == "gpu") return 0;
  if (!name.starts_with(kPrefix)) return not_a_device(name);
  const std::string_view which = name.substr(kPrefix.size());
  if (which.starts_with("GPU-")) return index_of_uuid(which);
  int index = 0;
  const auto read = std::from_chars(which.data(), which.data() + which.size(), index);
  if (read.ec != std::errc() || read.ptr != which.data() + which.size()) return not_a_device(name);
  return index;
}

Result<std::string> stack_in_use() {
  int driver = 0;
  int runtime = 0;
  TUTTI_CUDA_CHECK(cudaDriverGetVersion(&driver));
  TUTTI_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  return fmt::format("CUDA {} (the driver knows {}), {}, NCCL {}", cuda::version_text(runtime),
                     cuda::version_text(driver), cuda::product_library(), nccl_version());
}

}  // namespace

Result<std::unique_ptr<Device>> open_device(std::string_view name, Precision precision) {
  if (name == "cpu") return std::unique_ptr<Device>();
  const auto index = index_of(name);
  if (!index) return index.error();
  const char* const graphs = std::getenv("TUTTI_GPU_GRAPHS");
  const bool plain = graphs != nullptr && std::string_view(graphs) == "0";
  using Graphs = cuda::DeviceOptions::Graphs;
  auto device = cuda::CudaDevice::open({.index = *index,
                                        .inputs = inputs_for(precision),
                                        .cache = cache_folder(),
                                        .graphs = plain ? Graphs::off : Graphs::on});
  if (!device) return std::move(device).error();
  return std::unique_ptr<Device>(*std::move(device));
}

Result<DeviceList> list_devices() {
  auto count = cuda::count_devices();
  if (!count) return count.error();
  auto stack = stack_in_use();
  if (!stack) return stack.error();
  DeviceList list;
  list.stack = *std::move(stack);
  // Of the driver what it implements: its releases of one branch are alike in that.
  int driver = 0;
  int runtime = 0;
  TUTTI_CUDA_CHECK(cudaDriverGetVersion(&driver));
  TUTTI_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  list.exchange = fmt::format("nccl-{} cuda-{} driver-{}", nccl_version(),
                              cuda::version_text(runtime), cuda::version_text(driver));
  for (int index = 0; index < *count; ++index) {
    cudaDeviceProp properties;
    TUTTI_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    if (std::string_view(properties.name).find(" MIG ") != std::string_view::npos) {
      return Error{
          ErrorCode::unsupported,
          fmt::format("{} is an instance of a GPU that is cut up, which is not leased: end "
                      "that by `nvidia-smi -mig 0`, or leave it out of "
                      "CUDA_VISIBLE_DEVICES",
                      properties.name)};
    }
    std::vector<std::string> profiles;
    for (const Precision precision :
         {Precision::fp32, Precision::bf16, Precision::fp16, Precision::tf32}) {
      profiles.push_back(cuda::profile_of(properties, inputs_for(precision)));
    }
    if (cuda::has_fp8(properties)) {
      profiles.push_back(cuda::profile_of(properties, inputs_for(Precision::fp8)));
    }
    if (list.profiles.empty()) list.profiles = profiles;
    if (list.profiles != profiles) {
      return Error{ErrorCode::unsupported,
                   fmt::format("{} and {} are in one machine: run a worker for each kind of GPU, "
                               "with CUDA_VISIBLE_DEVICES naming those of its own",
                               list.devices.front().name, properties.name)};
    }
    list.devices.push_back(
        {cuda::uuid_text(properties.uuid), properties.name, properties.totalGlobalMem});
  }
  return list;
}

}  // namespace tutti::kernels

#include "kernels/cuda/device.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "kernels/collective/nccl_group.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/products.h"

namespace tutti::kernels::cuda {

namespace {

std::string_view name_of(Products::Inputs inputs) {
  switch (inputs) {
    case Products::Inputs::fp32: return "fp32";
    case Products::Inputs::bf16: return "bf16";
    case Products::Inputs::fp16: return "fp16";
    case Products::Inputs::tf32: return "tf32";
    case Products::Inputs::fp8: return "fp8-e4m3_rows";
  }
  return "fp32";
}

}  // namespace

std::string profile_of(const cudaDeviceProp& properties, Products::Inputs inputs) {
  return fmt::format("sm_{}{}-{}-{}", properties.major, properties.minor, name_of(inputs),
                     product_library());
}

bool has_fp8(const cudaDeviceProp& properties) {
  return properties.major == 9 && properties.minor == 0 && products_scale_rows();
}

namespace {

// Devices of one name choose alike, those of one architecture need not.
std::filesystem::path choices_file(const std::filesystem::path& cache,
                                   const cudaDeviceProp& properties) {
  if (cache.empty()) return {};
  std::string name = fmt::format("products-sm_{}{}-{}-{}", properties.major, properties.minor,
                                 properties.name, product_library());
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_'; }, '_');
  return cache / (name + ".txt");
}

}  // namespace

std::string CudaDevice::choices() const { return products_->choices().hash(); }
std::string CudaDevice::choice_table() const { return products_->choices().used(); }

Result<> CudaDevice::adopt_choices(const std::string& table) {
  if (auto idle = synchronize(); !idle) return idle;
  graphs_.forget();
  return products_->adopt(table);
}

Result<> CudaDevice::run_repeated(std::uint64_t key, const std::function<Result<>()>& step) {
  const bool plain = options_.graphs == DeviceOptions::Graphs::off || graphs_.takes_data() ||
                     options_.waiting == DeviceOptions::Waiting::after_each_op;
  return plain ? step() : graphs_.run(stream_.get(), key, step);
}

Result<std::unique_ptr<CudaDevice>> CudaDevice::open(const DeviceOptions& options) {
  if (auto usable = use_device(options.index); !usable) return std::move(usable).error();
  if (auto runs = check_code(); !runs) return std::move(runs).error();
  cudaDeviceProp properties;
  TUTTI_CUDA_CHECK(cudaGetDeviceProperties(&properties, options.index));
  if (options.inputs == Products::Inputs::fp8 && !has_fp8(properties)) {
    return Error{
        ErrorCode::unsupported,
        fmt::format("fp8 needs a GPU of compute capability 9.0 and cuBLAS 12.9 or later: "
                    "{} has {}.{}, with {}",
                    properties.name, properties.major, properties.minor, product_library())};
  }
  std::unique_ptr<CudaDevice> device(new CudaDevice);
  device->options_ = options;
  device->name_ = properties.name;
  device->shared_bytes_max_ = properties.sharedMemPerBlockOptin;
  auto stream = make_stream();
  if (!stream) return std::move(stream).error();
  device->stream_ = *std::move(stream);
  auto link = make_stream();
  if (!link) return std::move(link).error();
  device->link_ = *std::move(link);
  auto ring = UploadRing::make();
  if (!ring) return std::move(ring).error();
  device->ring_ = *std::move(ring);
  device->scratch_.before_release([one = device.get()] { return one->forget_scratch(); });
  auto products = Products::open(ProductChoices(choices_file(options.cache, properties)));
  if (!products) return std::move(products).error();
  device->products_ = *std::move(products);
  device->profile_ = profile_of(properties, options.inputs);
  return device;
}

CudaDevice::~CudaDevice() { static_cast<void>(cudaStreamSynchronize(stream_.get())); }

Result<std::string> CudaDevice::link_id() { return make_nccl_id(); }

Result<std::unique_ptr<Communicator>> CudaDevice::link(std::unique_ptr<Communicator> group,
                                                       const std::string& id) {
  return NcclGroup::over(std::move(group),
                         {.id = id, .compute = stream_.get(), .transfers = link_.get()});
}

Result<std::size_t> CudaDevice::free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  TUTTI_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

Result<void*> CudaDevice::allocate(std::size_t bytes) {
  auto memory = make_device_memory(std::max<std::size_t>(bytes, 1));
  if (!memory) return std::move(memory).error();
  void* const address = memory->get();
  memory_.emplace_back(address, *std::move(memory));
  return address;
}

// What is enqueued may still use the memory.
void CudaDevice::release(void* memory) noexcept {
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
  std::erase_if(memory_, [memory](const auto& one) { return one.first == memory; });
}

Result<> CudaDevice::upload(void* to, const void* from, std::size_t bytes) {
  // A graph would send what the ring holds at its launch: other data.
  if (graphs_.captures()) {
    return Error{ErrorCode::internal,
                 "a step could not be captured: it uploads, where an op stages its data; "
                 "TUTTI_GPU_GRAPHS=0 runs it without graphs"};
  }
  return ring_.send(stream_.get(), to, from, bytes);
}

// Where ops are given host memory that the device sees, the runtime looks where a copy's ends lie.
cudaMemcpyKind CudaDevice::kind(cudaMemcpyKind meant) const {
  return options_.waiting == DeviceOptions::Waiting::after_each_op ? cudaMemcpyDefault : meant;
}

Result<> CudaDevice::download(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return {};
  TUTTI_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, kind(cudaMemcpyDeviceToHost), stream_.get()));
  return synchronize();
}

Result<> CudaDevice::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0 || !enqueues("copy", bytes)) return {};
  TUTTI_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, kind(cudaMemcpyDeviceToDevice), stream_.get()));
  return end_op();
}

Result<> CudaDevice::zero(void* memory, std::size_t bytes) {
  if (bytes == 0 || !enqueues("zero", bytes)) return {};
  TUTTI_CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, stream_.get()));
  return end_op();
}

Result<> CudaDevice::synchronize() {
  TUTTI_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
  return {};
}

// Graphs have its addresses in them. A device that has failed says so to whoever asks next.
bool CudaDevice::forget_scratch() {
  if (graphs_.captures()) return false;
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
  graphs_.forget();
  return true;
}

Result<float*> CudaDevice::scratch_floats(Index count) {
  auto memory = scratch_.take(static_cast<std::size_t>(count) * sizeof(float));
  if (!memory) return std::move(memory).error();
  return static_cast<float*>(*memory);
}

Result<> CudaDevice::end_op() {
  const LaunchRefusal refused = std::exchange(launch_refusal, {});
  const cudaError_t last = cudaGetLastError();
  if (refused.kernel != nullptr) {
    return Error{ErrorCode::unsupported,
                 fmt::format("{} takes {} KiB of shared memory a block, this GPU gives {}: heads "
                             "are too wide for it; take a GPU with more, or device: cpu",
                             refused.kernel, refused.shared_bytes >> 10, shared_bytes_max_ >> 10)};
  }
  TUTTI_CUDA_CHECK(last);
  if (options_.waiting == DeviceOptions::Waiting::after_each_op) return synchronize();
  return {};
}

}  // namespace tutti::kernels::cuda

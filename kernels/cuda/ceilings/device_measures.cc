#include "kernels/tensor/device_measures.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/ceilings/measures.h"
#include "kernels/cuda/ceilings/words.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/products.h"

namespace tutti::kernels {

namespace cuda {

MeasureSizes sizes_of(DeviceMeasures::Size size) {
  if (size == DeviceMeasures::Size::full) return {};
  return {.rows = 64, .memory_bytes = std::size_t{64} << 10, .copy_bytes = std::size_t{16} << 10};
}

Result<> expect_words(cudaStream_t stream, const void* memory, std::size_t bytes,
                      std::uint32_t seed, std::string_view what) {
  std::vector<std::uint32_t> words(bytes / sizeof(std::uint32_t));
  TUTTI_CUDA_CHECK(cudaMemcpyAsync(words.data(), memory, words.size() * sizeof(words[0]),
                                   cudaMemcpyDeviceToHost, stream));
  TUTTI_CUDA_CHECK(cudaStreamSynchronize(stream));
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == known_word(i, seed)) continue;
    return Error{ErrorCode::corrupt,
                 fmt::format("{}: what arrived is not what was sent, from byte {} on", what,
                             i * sizeof(words[0]))};
  }
  return {};
}

namespace {

constexpr std::uint32_t kSeed = 1;

// What one GPU is measured with.
struct Bench {
  MeasureSizes sizes;
  Stream stream;
  DeviceMemory one, two, three;  // each of memory_bytes; the first two full of known words
  PinnedMemory host;             // copy_bytes
  std::unique_ptr<Products> products;

  static Result<Bench> open(int index, const MeasureSizes& sizes);
  Result<> wait() const {
    TUTTI_CUDA_CHECK(cudaGetLastError());
    TUTTI_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
    return {};
  }
};

Result<Bench> Bench::open(int index, const MeasureSizes& sizes) {
  if (auto usable = use_device(index); !usable) return std::move(usable).error();
  Bench bench;
  bench.sizes = sizes;
  auto stream = make_stream();
  if (!stream) return std::move(stream).error();
  bench.stream = *std::move(stream);
  for (DeviceMemory* const memory : {&bench.one, &bench.two, &bench.three}) {
    auto made = make_device_memory(sizes.memory_bytes);
    if (!made) return std::move(made).error();
    *memory = *std::move(made);
  }
  auto host = make_pinned_memory(sizes.copy_bytes);
  if (!host) return std::move(host).error();
  bench.host = *std::move(host);
  std::memset(bench.host.get(), 0, sizes.copy_bytes);
  auto products = Products::open();
  if (!products) return std::move(products).error();
  bench.products = *std::move(products);
  for (const DeviceMemory* const memory : {&bench.one, &bench.two}) {
    fill_words(bench.stream.get(), memory->get(), sizes.memory_bytes, kSeed);
  }
  if (auto filled = bench.wait(); !filled) return std::move(filled).error();
  return bench;
}

// Nothing is stored of what the library chooses here: a training job asks anew.
Result<double> measure_product(Bench& bench, Products::Inputs inputs) {
  const Index n = bench.sizes.rows;
  const auto* const left = static_cast<const float*>(bench.one.get());
  const auto* const right = static_cast<const float*>(bench.two.get());
  const Product product{.left = {left, n, n},
                        .right = {right, n, n},
                        .output = {static_cast<float*>(bench.three.get()), n, n}};
  const bool narrow = inputs == Products::Inputs::bf16;
  const Products::Operands operands{.type = inputs,
                                    .left = narrow ? left : nullptr,
                                    .right = narrow ? right : nullptr,
                                    .left_stride = n,
                                    .right_stride = n};
  const auto took = fastest_round([&]() -> Result<> {
    auto ran = bench.products->run(bench.stream.get(), ProductForm::nt, product, &operands);
    if (!ran) return std::move(ran).error();
    return bench.wait();
  });
  if (!took) return took.error();
  const auto side = static_cast<double>(n);
  return 2 * side * side * side / *took * 1e-12;
}

Result<double> measure_reading(Bench& bench) {
  const std::size_t bytes = bench.sizes.memory_bytes;
  const auto took = fastest_round([&] {
    read_words(bench.stream.get(), bench.one.get(), bytes,
               static_cast<std::uint32_t*>(bench.three.get()));
    return bench.wait();
  });
  if (!took) return took.error();
  return static_cast<double>(bytes) / *took * 1e-9;
}

// Bytes read and written count alike.
Result<double> measure_copying(Bench& bench) {
  const std::size_t bytes = bench.sizes.memory_bytes;
  const auto took = fastest_round([&]() -> Result<> {
    TUTTI_CUDA_CHECK(cudaMemcpyAsync(bench.three.get(), bench.one.get(), bytes,
                                     cudaMemcpyDeviceToDevice, bench.stream.get()));
    return bench.wait();
  });
  if (!took) return took.error();
  if (auto same = expect_words(bench.stream.get(), bench.three.get(), bench.sizes.copy_bytes, kSeed,
                               "a copy in its memory");
      !same) {
    return std::move(same).error();
  }
  return 2 * static_cast<double>(bytes) / *took * 1e-9;
}

Result<double> measure_host(Bench& bench, cudaMemcpyKind kind) {
  const std::size_t bytes = bench.sizes.copy_bytes;
  const bool up = kind == cudaMemcpyHostToDevice;
  void* const to = up ? bench.three.get() : bench.host.get();
  const void* const from = up ? bench.host.get() : bench.three.get();
  const auto took = fastest_round([&]() -> Result<> {
    TUTTI_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, kind, bench.stream.get()));
    return bench.wait();
  });
  if (!took) return took.error();
  return static_cast<double>(bytes) / *took * 1e-9;
}

struct Kind {
  std::string_view name;
  std::string_view unit;
  Result<double> (*measure)(Bench& bench);
};
constexpr Kind kKinds[] = {
    {"fp32 product", "TFLOP/s",
     [](Bench& bench) { return measure_product(bench, Products::Inputs::fp32); }},
    {"tf32 product", "TFLOP/s",
     [](Bench& bench) { return measure_product(bench, Products::Inputs::tf32); }},
    {"bf16 product", "TFLOP/s",
     [](Bench& bench) { return measure_product(bench, Products::Inputs::bf16); }},
    {"read, memory", "GB/s", measure_reading},
    {"copy, memory", "GB/s", measure_copying},
    {"from the host", "GB/s",
     [](Bench& bench) { return measure_host(bench, cudaMemcpyHostToDevice); }},
    {"to the host", "GB/s",
     [](Bench& bench) { return measure_host(bench, cudaMemcpyDeviceToHost); }},
};

// Whether the GPU at `from` reaches the other's memory itself; it does from then on.
Result<bool> reach(int from, int to) {
  int can = 0;
  TUTTI_CUDA_CHECK(cudaSetDevice(from));
  TUTTI_CUDA_CHECK(cudaDeviceCanAccessPeer(&can, from, to));
  if (can == 0) return false;
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(to, 0);
  if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
    static_cast<void>(cudaGetLastError());
    return true;
  }
  TUTTI_CUDA_CHECK(enabled);
  return true;
}

// Copies of known words from one GPU to another, again and again.
class PeerCopy {
 public:
  static Result<PeerCopy> open(int from, int to, std::size_t bytes) {
    PeerCopy copy;
    copy.from_ = from;
    copy.to_ = to;
    copy.bytes_ = bytes;
    auto direct = reach(from, to);
    if (!direct) return std::move(direct).error();
    copy.direct_ = *direct;
    TUTTI_CUDA_CHECK(cudaSetDevice(to));
    auto receiving = make_stream();
    auto there = make_device_memory(bytes);
    if (!receiving || !there) return receiving ? there.error() : receiving.error();
    copy.receiving_ = *std::move(receiving);
    copy.there_ = *std::move(there);
    TUTTI_CUDA_CHECK(cudaMemsetAsync(copy.there_.get(), 0, bytes, copy.receiving_.get()));
    TUTTI_CUDA_CHECK(cudaStreamSynchronize(copy.receiving_.get()));
    TUTTI_CUDA_CHECK(cudaSetDevice(from));
    auto sending = make_stream();
    auto here = make_device_memory(bytes);
    if (!sending || !here) return sending ? here.error() : sending.error();
    copy.sending_ = *std::move(sending);
    copy.here_ = *std::move(here);
    fill_words(copy.sending_.get(), copy.here_.get(), bytes, kSeed);
    return copy;
  }

  bool direct() const { return direct_; }

  Result<> begin() const {
    TUTTI_CUDA_CHECK(cudaGetLastError());
    TUTTI_CUDA_CHECK(cudaSetDevice(from_));
    TUTTI_CUDA_CHECK(
        cudaMemcpyPeerAsync(there_.get(), to_, here_.get(), from_, bytes_, sending_.get()));
    return {};
  }
  Result<> wait() const {
    TUTTI_CUDA_CHECK(cudaStreamSynchronize(sending_.get()));
    return {};
  }
  Result<> expect(std::string_view what) const {
    TUTTI_CUDA_CHECK(cudaSetDevice(to_));
    return expect_words(receiving_.get(), there_.get(), bytes_, kSeed, what);
  }

 private:
  int from_ = 0;
  int to_ = 0;
  std::size_t bytes_ = 0;
  bool direct_ = false;
  Stream receiving_, sending_;
  DeviceMemory there_, here_;
};

// GB/s of all the copies together, which run at once.
Result<DeviceSpeed> measure_copies(std::span<const PeerCopy> copies, std::size_t bytes,
                                   std::string_view what) {
  const auto took = fastest_round([&]() -> Result<> {
    for (const PeerCopy& copy : copies) {
      if (auto begun = copy.begin(); !begun) return begun;
    }
    for (const PeerCopy& copy : copies) {
      if (auto done = copy.wait(); !done) return done;
    }
    return {};
  });
  if (!took) return took.error();
  bool direct = true;
  for (const PeerCopy& copy : copies) {
    if (auto same = copy.expect(what); !same) return std::move(same).error();
    direct = direct && copy.direct();
  }
  const auto sent = static_cast<double>(copies.size() * bytes);
  return DeviceSpeed{.value = sent / *took * 1e-9, .direct = direct};
}

Result<DeviceSpeed> measure_pair(int from, int to, std::size_t bytes) {
  const auto copy = PeerCopy::open(from, to, bytes);
  if (!copy) return copy.error();
  return measure_copies({&*copy, 1}, bytes, "a copy to a peer");
}

Result<DeviceSpeed> measure_both_ways(int one, int other, std::size_t bytes) {
  std::vector<PeerCopy> copies;
  for (const auto& [from, to] : {std::pair(one, other), std::pair(other, one)}) {
    auto copy = PeerCopy::open(from, to, bytes);
    if (!copy) return std::move(copy).error();
    copies.push_back(*std::move(copy));
  }
  return measure_copies(copies, bytes, "copies both ways");
}

// Measures by their numbers, whatever is left out.
class Sequence {
 public:
  explicit Sequence(const DeviceMeasures& measures, std::vector<std::string> uuids)
      : measures_(measures), sizes_(sizes_of(measures.size)), uuids_(std::move(uuids)) {}

  Result<> run() {
    const int count = static_cast<int>(uuids_.size());
    for (int index = 0; index < count; ++index) {
      if (auto done = run_device(index); !done) return done;
    }
    for (int from = 0; from < count; ++from) {
      for (int to = 0; to < count; ++to) {
        if (from == to) continue;
        if (auto done = run_pair("copy to a peer", from, to, measure_pair); !done) return done;
      }
    }
    for (int one = 0; one < count; ++one) {
      for (int other = one + 1; other < count; ++other) {
        auto done = run_pair("copies both ways", one, other, measure_both_ways);
        if (!done) return done;
      }
    }
    std::vector<int> all;
    for (int index = 0; index < count; ++index) {
      if (takes(uuids_[of(index)])) all.push_back(index);
    }
    if (all.size() < 2) return {};
    return measure({.name = "all to all", .unit = "GB/s", .uuid = {}, .peer = {}},
                   [&] { return exchange_of_all(all, sizes_); });
  }

 private:
  static std::size_t of(int index) { return static_cast<std::size_t>(index); }
  bool takes(const std::string& uuid) const {
    return std::ranges::find(measures_.without, uuid) == measures_.without.end();
  }

  Result<> run_pair(std::string_view name, int one, int other,
                    Result<DeviceSpeed> (*take)(int, int, std::size_t)) {
    return measure(
        {.name = name, .unit = "GB/s", .uuid = uuids_[of(one)], .peer = uuids_[of(other)]},
        [&] { return take(one, other, sizes_.copy_bytes); });
  }

  Result<> run_device(int index) {
    std::optional<Bench> bench;
    for (const Kind& kind : kKinds) {
      const auto done =
          measure({.name = kind.name, .unit = kind.unit, .uuid = uuids_[of(index)], .peer = {}},
                  [&]() -> Result<DeviceSpeed> {
                    // Within the first measure: opening a GPU may hang, too.
                    if (!bench) {
                      auto opened = Bench::open(index, sizes_);
                      if (!opened) return std::move(opened).error();
                      bench = *std::move(opened);
                    }
                    auto value = kind.measure(*bench);
                    if (!value) return std::move(value).error();
                    return DeviceSpeed{.value = *value};
                  });
      if (!done) return done;
    }
    return {};
  }

  template <class Take>
  Result<> measure(DeviceMeasure what, Take take) {
    what.number = ++number_;
    if (what.number <= measures_.after || !takes(what.uuid) || !takes(what.peer)) return {};
    measures_.begins(what);
    const Result<DeviceSpeed> speed = take();
    measures_.ended(what, speed);
    const bool lost = !speed && speed.error().code == ErrorCode::unavailable;
    return lost ? Result<>(speed.error()) : Result<>();
  }

  const DeviceMeasures& measures_;
  MeasureSizes sizes_;
  std::vector<std::string> uuids_;
  std::uint32_t number_ = 0;
};

}  // namespace

}  // namespace cuda

Result<> measure_devices(const DeviceMeasures& measures) {
  auto count = cuda::count_devices();
  if (!count) return std::move(count).error();
  std::vector<std::string> uuids;
  for (int index = 0; index < *count; ++index) {
    cudaDeviceProp properties;
    TUTTI_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    uuids.push_back(cuda::uuid_text(properties.uuid));
  }
  return cuda::Sequence(measures, std::move(uuids)).run();
}

}  // namespace tutti::kernels

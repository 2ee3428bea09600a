#include "ops/bench/gpu/cases.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "jobs/models/layer.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::bench::gpu {

namespace {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;
using kernels::ProductForm;
using kernels::cuda::CudaDevice;

constexpr int kRuns = 50;
constexpr int kWarmUp = 3;

Row product_row(CudaDevice& device, Index m, Index n, Index k) {
  FloatBuffer x(m * k, &device);
  FloatBuffer w(n * k, &device);
  FloatBuffer y(m * n, &device);
  const auto seconds = timed(device, kRuns, [&] {
    models::must(device.enqueue(ProductForm::nt, kernels::Product{.left = x.matrix(m, k),
                                                                  .right = w.matrix(n, k),
                                                                  .output = y.matrix(m, n)}));
  });
  const double operations =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return row_of(fmt::format("product bf16 {}x{}x{}, rounding included", m, n, k), seconds,
                operations, kBf16Peak, "989 TFLOP/s");
}

Row attention_row(CudaDevice& device, Index samples, Index length, Index heads, Index width) {
  const Index tokens = samples * length;
  const Index wide = heads * width;
  FloatBuffer q(tokens * wide, &device);
  FloatBuffer k(tokens * wide, &device);
  FloatBuffer v(tokens * wide, &device);
  FloatBuffer out(tokens * wide, &device);
  std::vector<std::int32_t> offsets;
  for (Index s = 0; s <= samples; ++s) offsets.push_back(static_cast<std::int32_t>(s * length));
  const kernels::AttentionShape shape{heads, heads, width,
                                      1.0F / std::sqrt(static_cast<float>(width))};
  const auto seconds = timed(device, kRuns, [&] {
    models::must(device.enqueue(kernels::AttentionForward{.shape = shape,
                                                          .q = q.matrix(tokens, wide),
                                                          .k = k.matrix(tokens, wide),
                                                          .v = v.matrix(tokens, wide),
                                                          .sample_offsets = offsets,
                                                          .out = out.matrix(tokens, wide)}));
  });
  // Half of the pairs are seen; two products of them.
  const double operations = 2.0 * static_cast<double>(samples * heads * length * length * width);
  return row_of(
      fmt::format("attention forward {}x{}, {} heads of {}", samples, length, heads, width),
      seconds, operations, kBf16Peak, "989 TFLOP/s");
}

Row norm_row(CudaDevice& device, double bandwidth) {
  const Index rows = 16384;
  const Index width = 4096;
  FloatBuffer x(rows * width, &device);
  FloatBuffer y(rows * width, &device);
  FloatBuffer weight(width, &device);
  const auto seconds = timed(device, kRuns, [&] {
    models::must(device.enqueue(kernels::RmsNormForward{
        .x = x.matrix(rows, width), .weight = weight.data(), .y = y.matrix(rows, width)}));
  });
  return row_of("rms norm 16384x4096", seconds,
                2.0 * static_cast<double>(rows * width) * sizeof(float), bandwidth,
                "copy bandwidth");
}

Row optimizer_row(CudaDevice& device, double bandwidth) {
  const Index count = Index{64} << 20;
  FloatBuffer weight(count, &device);
  FloatBuffer gradient(count, &device);
  FloatBuffer first(count, &device);
  FloatBuffer second(count, &device);
  FloatBuffer hashes(4 * kernels::grid_blocks(count), &device);
  const auto seconds = timed(device, kRuns, [&] {
    models::must(device.enqueue(
        kernels::AdamWUpdate{.settings = {},
                             .weight = weight.span(),
                             .gradient = gradient.span(),
                             .first = first.span(),
                             .second = second.span(),
                             .hashes = {reinterpret_cast<kernels::Hash128*>(hashes.data()),
                                        static_cast<std::size_t>(kernels::grid_blocks(count))}}));
  });
  return row_of("adamw with hash, 64 Mi parameters", seconds,
                7.0 * static_cast<double>(count) * sizeof(float), bandwidth, "copy bandwidth");
}

}  // namespace

Row row_of(const std::string& name, const std::vector<double>& seconds, double work, double ceiling,
           const std::string& ceiling_name) {
  const std::size_t count = seconds.size();
  const double median = seconds[count / 2];
  return {name,
          "s",
          seconds.front(),
          median,
          seconds[std::min(count - 1, count * 99 / 100)],
          static_cast<int>(count),
          work / median / ceiling,
          ceiling_name};
}

std::vector<double> timed(CudaDevice& device, int runs, const std::function<void()>& body) {
  auto from = kernels::cuda::make_event(kernels::cuda::Timing::on);
  auto to = kernels::cuda::make_event(kernels::cuda::Timing::on);
  std::vector<double> seconds;
  for (int run = -kWarmUp; run < runs; ++run) {
    static_cast<void>(cudaEventRecord(from->get(), device.stream()));
    body();
    static_cast<void>(cudaEventRecord(to->get(), device.stream()));
    models::must(device.synchronize());
    float milliseconds = 0.0F;
    static_cast<void>(cudaEventElapsedTime(&milliseconds, from->get(), to->get()));
    if (run >= 0) seconds.push_back(static_cast<double>(milliseconds) * 1e-3);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

double copy_bandwidth(CudaDevice& device) {
  const Index count = Index{256} << 20;
  FloatBuffer from(count, &device);
  FloatBuffer to(count, &device);
  const std::size_t bytes = from.span().size_bytes();
  const auto seconds =
      timed(device, 20, [&] { models::must(device.copy(to.data(), from.data(), bytes)); });
  return 2.0 * static_cast<double>(bytes) / seconds[seconds.size() / 2];
}

std::vector<Row> kernel_rows(CudaDevice& device) {
  const double bandwidth = copy_bandwidth(device);
  return {product_row(device, 8192, 4096, 4096),
          product_row(device, 8192, 14336, 4096),
          attention_row(device, 4, 4096, 32, 128),
          attention_row(device, 16, 1024, 12, 64),
          norm_row(device, bandwidth),
          optimizer_row(device, bandwidth)};
}

std::vector<Row> quantised_rows(CudaDevice& device) {
  // One layer's products of an 8B-shaped decoder, eight sequences, weights in 8 and 4 bits.
  const double bandwidth = copy_bandwidth(device);
  const Index m = 8;
  const Index k = 4096;
  const Index n = 6144 + 4096 + 3 * 14336 * 4096 / 4096;
  FloatBuffer x(m * k, &device);
  FloatBuffer y(m * n, &device);
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool, &device};
  std::vector<Row> rows;
  for (const auto format : {kernels::WeightFormat::int8_channel, kernels::WeightFormat::q4_0}) {
    const std::size_t row_bytes = kernels::row_bytes(format, k);
    const std::vector<std::byte> zeros(row_bytes * static_cast<std::size_t>(n));
    const auto weight = kernels::pack_rows(ctx, format, zeros, n);
    models::must(weight ? Result<>() : Result<>(weight.error()));
    const auto seconds = timed(device, kRuns, [&] {
      models::must(kernels::product_quantised(
          ctx, {.left = x.matrix(m, k), .right = &*weight, .output = y.matrix(m, n)}));
    });
    rows.push_back(row_of(
        fmt::format("decode products, a layer of 8B, {}, 8 rows", kernels::to_string(format)),
        seconds, static_cast<double>(zeros.size()), bandwidth, "copy bandwidth"));
  }
  return rows;
}

bool streams_overlap() {
  auto one = CudaDevice::open({});
  auto two = CudaDevice::open({});
  if (!one || !two) return false;
  // Few blocks each, so that both fit on the card side by side.
  const Index rows = 8;
  const Index width = Index{4} << 20;
  const auto enqueue = [&](CudaDevice& device, const FloatBuffer& x, const FloatBuffer& weight) {
    models::must(device.enqueue(kernels::RmsNormForward{
        .x = x.matrix(rows, width), .weight = weight.data(), .y = x.matrix(rows, width)}));
  };
  FloatBuffer x1(rows * width, one->get());
  FloatBuffer x2(rows * width, two->get());
  FloatBuffer w1(width, one->get());
  FloatBuffer w2(width, two->get());
  const auto seconds = [&](bool both) {
    const auto runs = timed(**one, 10, [&] {
      enqueue(**one, x1, w1);
      if (!both) return;
      enqueue(**two, x2, w2);
      models::must((*two)->synchronize());
    });
    return runs[runs.size() / 2];
  };
  return seconds(true) < 1.6 * seconds(false);
}

}  // namespace tutti::bench::gpu

// Ops that follow tokens and positions: embedding rows, their gradient, rotary angles and turns.
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/math.h"
#include "kernels/ops/rotary.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;

__global__ void embedding_forward_kernel(Rows<const float> table, const std::int32_t* tokens,
                                         Rows<float> output, Index width) {
  const float* const from = table.at(tokens[blockIdx.x]);
  float* const to = output.at(blockIdx.x);
  for (Index c = threadIdx.x; c < width; c += kThreads) to[c] = from[c];
}

__global__ void embedding_bf16_kernel(const std::uint16_t* table, const std::int32_t* tokens,
                                      Rows<float> output, Index width) {
  const std::uint16_t* const from = table + tokens[blockIdx.x] * width;
  float* const to = output.at(blockIdx.x);
  for (Index c = threadIdx.x; c < width; c += kThreads) to[c] = from_bf16(from[c]);
}

// Rows of one token: entries [begin, end) of the sorted rows. A token below 0: none.
struct TokenRows {
  std::int32_t token, begin, end;
};

// Block (token): a chain over its rows in order, for each column.
__global__ void embedding_backward_kernel(Rows<const float> dout, const TokenRows* tokens,
                                          const std::int32_t* rows, Rows<float> dtable,
                                          Index width) {
  const TokenRows own = tokens[blockIdx.x];
  if (own.token < 0) return;
  float* const to = dtable.at(own.token);
  for (Index c = threadIdx.x; c < width; c += kThreads) {
    float sum = to[c];
    for (std::int32_t i = own.begin; i < own.end; ++i) sum += dout.at(rows[i])[c];
    to[c] = sum;
  }
}

__global__ void rotary_angles_kernel(const std::int32_t* positions, const float* cosines,
                                     const float* sines, Rows<float> cosine, Rows<float> sine,
                                     Index width, float factor) {
  const Index from = positions[blockIdx.x] * width;
  for (Index i = threadIdx.x; i < width; i += blockDim.x) {
    cosine.at(blockIdx.x)[i] = cosines[from + i] * factor;
    sine.at(blockIdx.x)[i] = sines[from + i] * factor;
  }
}

// Block (row): threads over (head, pair). In place, or into what is rounded.
__global__ void rotary_apply_kernel(Rows<float> x, Rows<std::uint16_t> rounded, Narrow narrow,
                                    unsigned heads, unsigned head_width, Rows<const float> cosine,
                                    Rows<const float> sine, unsigned half, float sign) {
  float* const own = x.at(blockIdx.x);
  const float* const cosines = cosine.at(blockIdx.x);
  const float* const sines = sine.at(blockIdx.x);
  for (TileWalk at(half, kThreads); at.row < heads; at.next()) {
    float* const first = own + at.row * head_width + at.column;
    float* const second = first + half;
    const float a = *first;
    const float b = *second;
    const float c = cosines[at.column];
    const float s = sines[at.column] * sign;
    const float turned = fmaf(-b, s, a * c);
    const float turned_too = fmaf(a, s, b * c);
    if (rounded.data == nullptr) {
      *first = turned;
      *second = turned_too;
      continue;
    }
    std::uint16_t* const to = rounded.at(blockIdx.x) + at.row * head_width + at.column;
    to[0] = narrowed(turned, narrow);
    to[half] = narrowed(turned_too, narrow);
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const EmbeddingForward& args) {
  begin_op();
  if (args.tokens.empty()) return {};
  auto tokens = stage(args.tokens.data(), args.tokens.size());
  if (!tokens) return std::move(tokens).error();
  const LaunchShape shape{static_cast<unsigned>(args.tokens.size()), kThreads};
  if (args.bf16 != nullptr) {
    TUTTI_LAUNCH(stream(), shape, embedding_bf16_kernel, args.bf16, *tokens, Rows(args.output),
                 args.table.columns);
  } else {
    TUTTI_LAUNCH(stream(), shape, embedding_forward_kernel, Rows(args.table), *tokens,
                 Rows(args.output), args.table.columns);
  }
  return end_op();
}

// The host sorts the rows by token: then no two threads add to one place, and each sum has its
// order.
Result<> CudaDevice::enqueue(const EmbeddingBackward& args) {
  begin_op();
  if (args.tokens.empty()) return {};
  std::pmr::vector<std::int32_t> rows(args.tokens.size(), &host_);
  std::iota(rows.begin(), rows.end(), 0);
  const auto token_of = [&](std::int32_t row) {
    return args.tokens[static_cast<std::size_t>(row)];
  };
  std::ranges::sort(rows, {}, [&](std::int32_t row) { return std::pair(token_of(row), row); });
  std::pmr::vector<TokenRows> tokens(&host_);
  tokens.reserve(rows.size());
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(rows.size()); ++i) {
    const std::int32_t token = token_of(rows[static_cast<std::size_t>(i)]);
    if (tokens.empty() || tokens.back().token != token) tokens.push_back({token, i, i});
    tokens.back().end = i + 1;
  }
  // As many as there may be: how many there are would be another launch for each batch, and so
  // another graph (graphs/step_graphs.h).
  tokens.resize(rows.size(), TokenRows{-1, 0, 0});
  auto staged_tokens = stage(tokens.data(), tokens.size());
  if (!staged_tokens) return std::move(staged_tokens).error();
  auto staged_rows = stage(rows.data(), rows.size());
  if (!staged_rows) return std::move(staged_rows).error();
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(tokens.size()), kThreads}),
               embedding_backward_kernel, Rows(args.dout), *staged_tokens, *staged_rows,
               Rows(args.dtable), args.dtable.columns);
  return end_op();
}

// Angles of all positions up to the largest seen are computed once on the host, by the same
// functions as on a CPU.
Result<> CudaDevice::grow_angles(std::span<const float> frequencies, Index positions) {
  const bool same = std::equal(frequencies.begin(), frequencies.end(), angles_.frequencies.begin(),
                               angles_.frequencies.end());
  if (same && positions <= angles_.positions) return {};
  constexpr Index kPositionsMin = 1024;
  Index count = kPositionsMin;
  while (count < positions) count *= 2;
  const std::size_t size = static_cast<std::size_t>(count) * frequencies.size();
  std::vector<float> cosines(size);
  std::vector<float> sines(size);
  std::size_t next = 0;
  for (Index position = 0; position < count; ++position) {
    for (const float frequency : frequencies) {
      const auto angle = static_cast<double>(static_cast<float>(position) * frequency);
      cosines[next] = static_cast<float>(kernels::cos(angle));
      sines[next++] = static_cast<float>(kernels::sin(angle));
    }
  }
  if (auto idle = synchronize(); !idle) return idle;  // what is enqueued may read the old table
  auto cosine = make_device_memory(std::max<std::size_t>(size, 1) * sizeof(float));
  if (!cosine) return std::move(cosine).error();
  auto sine = make_device_memory(std::max<std::size_t>(size, 1) * sizeof(float));
  if (!sine) return std::move(sine).error();
  angles_.frequencies.assign(frequencies.begin(), frequencies.end());
  angles_.positions = count;
  angles_.cosine = *std::move(cosine);
  angles_.sine = *std::move(sine);
  auto sent = upload(angles_.cosine.get(), cosines.data(), size * sizeof(float));
  if (!sent) return sent;
  return upload(angles_.sine.get(), sines.data(), size * sizeof(float));
}

Result<> CudaDevice::enqueue(const RotaryAngles& args) {
  begin_op();
  if (args.positions.empty() || args.frequencies.empty()) return {};
  const Index largest = *std::max_element(args.positions.begin(), args.positions.end());
  if (auto grown = grow_angles(args.frequencies, largest + 1); !grown) return grown;
  static_cast<void>(enqueues("angles", reinterpret_cast<std::uintptr_t>(angles_.cosine.get()),
                             reinterpret_cast<std::uintptr_t>(angles_.sine.get())));
  auto positions = stage(args.positions.data(), args.positions.size());
  if (!positions) return std::move(positions).error();
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.positions.size()), kWarp}),
               rotary_angles_kernel, *positions, static_cast<const float*>(angles_.cosine.get()),
               static_cast<const float*>(angles_.sine.get()), Rows(args.cosine), Rows(args.sine),
               args.cosine.columns, args.factor);
  return end_op();
}

Result<> CudaDevice::enqueue(const RotaryApply& args) {
  begin_op();
  const auto narrow = narrow_of("rotary_apply", {static_cast<bool>(args.rounded)});
  if (!narrow) return narrow.error();
  if (args.x.rows == 0 || args.cosine.columns == 0) return {};
  const float sign = args.direction == RotaryApply::Direction::forward ? 1.0F : -1.0F;
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               rotary_apply_kernel, Rows(args.x), Rows(args.rounded), *narrow,
               static_cast<unsigned>(args.x.columns / args.head_width),
               static_cast<unsigned>(args.head_width), Rows(args.cosine), Rows(args.sine),
               static_cast<unsigned>(args.cosine.columns), sign);
  return end_op();
}

}  // namespace tutti::kernels::cuda

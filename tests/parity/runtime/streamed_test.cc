// Outputs that are written past the caches: which, and that their bits are the others'.
#include "kernels/cpu/caches/streamed.h"

#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"
#include "tests/parity/harness.h"
#include "tests/parity/other_caches.h"

namespace tutti::kernels::parity {
namespace {

// Rows that begin with a line, an end that is no whole sixteen, and more than one piece of rows.
constexpr Index kRows = 40;
constexpr Index kColumns = 1003;
constexpr Index kStride = 1008;

// Memory as arenas give it: a vector's is not at a multiple of 64 bytes.
struct Lines {
  FloatBuffer data{kRows * kStride};
  Matrix rows() { return {data.data(), kRows, kColumns, kStride}; }
  ConstMatrix read() { return rows(); }
};
void draw_into(Lines& lines, std::uint64_t stream) {
  const Floats values = draw(kRows * kStride, stream);
  std::copy(values.begin(), values.end(), lines.data.data());
}

struct Ops {
  Lines x, dy, up, y, z;
  Floats weight = draw(kColumns, 4);
  Floats bias = draw(kColumns, 5);
  Floats statistics = draw(2 * kRows, 6);
  Floats all;

  Ops() {
    draw_into(x, 1);
    draw_into(dy, 2);
    draw_into(up, 3);
  }

  void keep(Result<> done) {
    REQUIRE(done);
    all.insert(all.end(), y.data.data(), y.data.data() + kRows * kStride);
    all.insert(all.end(), z.data.data(), z.data.data() + kRows * kStride);
  }

  void norms(const OpContext& ctx) {
    const float* const mean = statistics.data();
    const float* const inverse = statistics.data() + kRows;
    keep(rms_norm_forward(ctx, {.x = x.read(), .weight = weight.data(), .y = y.rows()}));
    keep(layer_norm_forward(
        ctx, {.x = x.read(), .weight = weight.data(), .bias = bias.data(), .y = y.rows()}));
    keep(rms_norm_backward(ctx, {.dy = dy.read(),
                                 .x = x.read(),
                                 .weight = weight.data(),
                                 .inverse = inverse,
                                 .dx = y.rows(),
                                 .residual = up.read()}));
    keep(layer_norm_backward(ctx, {.dy = dy.read(),
                                   .x = x.read(),
                                   .weight = weight.data(),
                                   .mean = mean,
                                   .inverse = inverse,
                                   .dx = y.rows(),
                                   .residual = up.read()}));
  }

  void rows(const OpContext& ctx) {
    keep(softmax_forward(ctx, {.x = x.read(), .y = y.rows()}));
    keep(softmax_backward(ctx, {.dy = dy.read(), .y = x.read(), .dx = y.rows()}));
    keep(log_softmax(ctx, x.read(), y.rows()));
    keep(dropout(ctx, {.key = {1, 2}, .first_row = 5, .rate = 0.3, .x = x.read(), .y = y.rows()}));
  }

  void elements(const OpContext& ctx) {
    for (const Activation kind : {Activation::relu, Activation::gelu}) {
      keep(activation_forward(ctx, {.kind = kind, .x = x.read(), .y = y.rows()}));
      keep(
          activation_backward(ctx, {.kind = kind, .dy = dy.read(), .x = x.read(), .dx = y.rows()}));
      keep(gate_forward(ctx, {.kind = kind, .gate = x.read(), .up = up.read(), .y = y.rows()}));
      keep(gate_backward(ctx, {.kind = kind,
                               .dy = dy.read(),
                               .gate = x.read(),
                               .up = up.read(),
                               .dgate = y.rows(),
                               .dup = z.rows()}));
    }
    keep(silu_gate_forward(ctx, {.gate = x.read(), .up = up.read(), .y = y.rows()}));
    keep(silu_gate_backward(
        ctx,
        {.dy = dy.read(), .gate = x.read(), .up = up.read(), .dgate = y.rows(), .dup = z.rows()}));
  }

  void halves(const OpContext& ctx) {
    const std::size_t count = static_cast<std::size_t>(kRows * kStride) - 5;
    const std::span<const float> from(x.data.data(), count);
    const std::span<Bf16> to(reinterpret_cast<Bf16*>(z.data.data()), count);
    keep(to_bf16(ctx, from, to));
    keep(from_bf16(ctx, to, std::span(y.data.data(), count)));
    keep(to_bf16_stochastic(ctx, {.key = {3, 4}, .first_index = 11, .from = from, .to = to}));
  }

  Floats run(const OpContext& ctx) {
    all.clear();
    for (Lines* const lines : {&y, &z}) std::fill_n(lines->data.data(), kRows * kStride, 7.0F);
    norms(ctx);
    rows(ctx);
    elements(ctx);
    halves(ctx);
    return all;
  }
};

}  // namespace

TEST_CASE("streamed: every op that writes past the caches has the bits of one that does not") {
  Ops ops;
  REQUIRE(writes_to(ops.y.rows(), {}) == Writes::cached);
  {
    const OtherCaches other;
    REQUIRE(writes_to(ops.y.rows(), {}) == Writes::streamed);
  }
  const Floats bits = ops.run(single());
  // Beside other caches, too.
  const Floats all = on_all_paths([&](const OpContext& ctx) { return one_nan(ops.run(ctx)); });
  REQUIRE(same_bits(all, one_nan(bits)));
}

TEST_CASE("streamed: outputs that no cache keeps, in whole lines, and not over what is read") {
  const Caches before = caches();
  choose_caches({.third_bytes = 4096});
  alignas(64) static float memory[4 * 256 + 16];
  const auto of = [](const float* from, Index rows, Index stride) {
    return writes_to(ConstMatrix(from, rows, 250, stride), {memory + 16, nullptr});
  };
  CHECK(of(memory, 3, 256) == Writes::streamed);
  CHECK(of(memory, 2, 256) == Writes::cached);       // half of it fits
  CHECK(of(memory, 3, 252) == Writes::cached);       // rows begin within lines
  CHECK(of(memory + 4, 3, 256) == Writes::cached);   // as does the first
  CHECK(of(memory + 16, 3, 256) == Writes::cached);  // where an input lies
  CHECK(writes_to(memory, 1000, {}) == Writes::streamed);
  CHECK(writes_to(memory, 512, {}) == Writes::cached);
  choose_caches({.third_bytes = Index{1} << 40});
  const auto large = kThirdBytesMax / 8;
  CHECK(writes_to(memory, large, {}) == Writes::cached);
  CHECK(writes_to(memory, large + 1, {}) == Writes::streamed);
  choose_caches(before);
}

}  // namespace tutti::kernels::parity

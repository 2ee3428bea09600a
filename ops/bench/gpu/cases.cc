#include "ops/bench/gpu/cases.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "jobs/models/layer.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/thread_pool.h"
#include "ops/bench/gpu/operands.h"

namespace tutti::bench::gpu {

namespace {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;
using kernels::ProductForm;
using kernels::cuda::CudaDevice;
using Inputs = kernels::cuda::Products::Inputs;

constexpr int kRuns = 50;
constexpr int kWarmUp = 3;
constexpr double kFloat = sizeof(float);

Extent chosen_extent = Extent::whole;

double real(Index count) { return static_cast<double>(count); }

// A matrix of normal numbers as products read it: so a job in bf16 keeps rows and weights.
class Rounded {
 public:
  Rounded(CudaDevice& device, Index rows, Index columns, double deviation = 1.0)
      : Rounded(device, rows, columns, nullptr) {
    const FloatBuffer wide = drawn(device, rows * columns, deviation);
    models::must(device.round(wide.matrix(rows, columns), matrix()));
    models::must(device.synchronize());
  }
  // Room for one.
  Rounded(CudaDevice& device, Index rows, Index columns, std::nullptr_t)
      : rows_(rows), columns_(columns), halves_(rows * columns / 2, &device) {}

  kernels::RoundedMatrix matrix() const {
    return {reinterpret_cast<std::uint16_t*>(halves_.data()), rows_, columns_};
  }
  // Its shape, for an op that reads it in place of fp32.
  kernels::ConstMatrix shape() const { return {nullptr, rows_, columns_}; }

 private:
  Index rows_, columns_;
  FloatBuffer halves_;
};

Case product_case(Index rows, Index outputs, Index inputs) {
  return {fmt::format("product bf16 {}x{}x{}", rows, outputs, inputs), [=](const Card& card) {
            CudaDevice& device = card.training();
            const Index m = sized(rows, Index{16});
            const Index n = sized(outputs, Index{24});
            const Index k = sized(inputs, Index{32});
            const Rounded x(device, m, k);
            const Rounded w(device, n, k);
            const FloatBuffer y(m * n, &device);
            return of_peak(
                timed(device, kRuns,
                      [&] {
                        models::must(device.enqueue(ProductForm::nt,
                                                    kernels::Product{.left = x.shape(),
                                                                     .right = w.shape(),
                                                                     .output = y.matrix(m, n),
                                                                     .left_rounded = x.matrix(),
                                                                     .right_rounded = w.matrix()}));
                      }),
                2.0 * real(m) * real(n) * real(k));
          }};
}

struct Heads {
  Index samples, length, heads, width;

  std::string text() const {
    return fmt::format("{}x{}, {} heads of {}", samples, length, heads, width);
  }
  Index tokens() const { return samples * length; }
  Index wide() const { return heads * width; }
  kernels::AttentionShape shape() const {
    return {heads, heads, width, 1.0F / std::sqrt(static_cast<float>(width))};
  }
  std::vector<std::int32_t> offsets() const {
    std::vector<std::int32_t> out;
    for (Index s = 0; s <= samples; ++s) out.push_back(static_cast<std::int32_t>(s * length));
    return out;
  }
  Heads in_extent() const {
    return sized(*this, {.samples = 2, .length = 40, .heads = 2, .width = width});
  }
  // Of one product over the pairs that are seen, half of all.
  double operations() const { return real(samples * heads * length * length * width); }
};

// Rows as a GPT-2 has them in bf16: what attention leaves is read in fp32, too.
struct AttentionArrays {
  AttentionArrays(CudaDevice& device, const Heads& h)
      : tokens(h.tokens()),
        wide(h.wide()),
        q(device, tokens, wide),
        k(device, tokens, wide),
        v(device, tokens, wide),
        out_rounded(device, tokens, wide, nullptr),
        dq_rounded(device, tokens, wide, nullptr),
        dk_rounded(device, tokens, wide, nullptr),
        dv_rounded(device, tokens, wide, nullptr),
        dout(drawn(device, tokens * wide)),
        lse(h.tokens() * h.heads, &device) {
    for (FloatBuffer* one : {&out, &dq, &dk, &dv}) *one = FloatBuffer(tokens * wide, &device);
  }
  Matrix of(const FloatBuffer& buffer) const { return buffer.matrix(tokens, wide); }

  Index tokens, wide;
  Rounded q, k, v, out_rounded, dq_rounded, dk_rounded, dv_rounded;
  FloatBuffer out, dq, dk, dv;
  FloatBuffer dout, lse;
};

kernels::AttentionForward forward_of(const AttentionArrays& in, const Heads& h,
                                     std::span<const std::int32_t> offsets) {
  return {.shape = h.shape(),
          .q = in.q.shape(),
          .k = in.k.shape(),
          .v = in.v.shape(),
          .sample_offsets = offsets,
          .out = in.of(in.out),
          .lse = in.lse.data(),
          .q_rounded = in.q.matrix(),
          .k_rounded = in.k.matrix(),
          .v_rounded = in.v.matrix(),
          .out_rounded = in.out_rounded.matrix()};
}

Measured attention_forward(const Card& card, const Heads& named) {
  CudaDevice& device = card.training();
  const Heads h = named.in_extent();
  const AttentionArrays in(device, h);
  const std::vector<std::int32_t> offsets = h.offsets();
  return of_peak(
      timed(device, kRuns, [&] { models::must(device.enqueue(forward_of(in, h, offsets))); }),
      2.0 * h.operations());
}

Measured attention_backward(const Card& card, const Heads& named) {
  CudaDevice& device = card.training();
  const Heads h = named.in_extent();
  const AttentionArrays in(device, h);
  const std::vector<std::int32_t> offsets = h.offsets();
  models::must(device.enqueue(forward_of(in, h, offsets)));
  const kernels::AttentionBackward backward{.shape = h.shape(),
                                            .q = in.q.shape(),
                                            .k = in.k.shape(),
                                            .v = in.v.shape(),
                                            .out = in.of(in.out),
                                            .dout = in.of(in.dout),
                                            .lse = in.lse.data(),
                                            .sample_offsets = offsets,
                                            .dq = in.of(in.dq),
                                            .dk = in.of(in.dk),
                                            .dv = in.of(in.dv),
                                            .q_rounded = in.q.matrix(),
                                            .k_rounded = in.k.matrix(),
                                            .v_rounded = in.v.matrix(),
                                            .dq_rounded = in.dq_rounded.matrix(),
                                            .dk_rounded = in.dk_rounded.matrix(),
                                            .dv_rounded = in.dv_rounded.matrix()};
  return of_peak(timed(device, kRuns, [&] { models::must(device.enqueue(backward)); }),
                 5.0 * h.operations());
}

struct Decode {
  Index sequences, held, heads, kv_heads, width;

  std::string name() const {
    return fmt::format("decode attention, {} sequences at {}, {} of {} heads of {}", sequences,
                       held, kv_heads, heads, width);
  }
};

Measured decode_attention(const Card& card, const Decode& named) {
  CudaDevice& device = card.serving();
  const Decode d =
      sized(named, {.sequences = 2, .held = 70, .heads = 4, .kv_heads = 2, .width = 64});
  const kernels::AttentionShape shape{d.heads, d.kv_heads, d.width,
                                      1.0F / std::sqrt(static_cast<float>(d.width))};
  const Index pages_each = kernels::kv_pages_for(d.held);
  const Index page = kernels::kv_page_floats(shape);
  const FloatBuffer memory = drawn(device, d.sequences * pages_each * page);
  std::vector<float*> pages;
  for (Index p = 0; p < d.sequences * pages_each; ++p) pages.push_back(memory.data() + p * page);
  std::vector<kernels::SequenceRows> sequences;
  for (Index s = 0; s < d.sequences; ++s) {
    const auto first = static_cast<std::size_t>(s * pages_each);
    sequences.push_back(
        {s, 1, d.held - 1, std::span(pages).subspan(first, static_cast<std::size_t>(pages_each))});
  }
  const FloatBuffer q = drawn(device, d.sequences * d.heads * d.width);
  const FloatBuffer out(d.sequences * d.heads * d.width, &device);
  const Index wide = d.heads * d.width;
  return of_bandwidth(
      card,
      timed(device, kRuns,
            [&] {
              models::must(device.enqueue(kernels::AttentionCached{
                  shape, q.matrix(d.sequences, wide), sequences, out.matrix(d.sequences, wide)}));
            }),
      2.0 * real(d.sequences * d.held * d.kv_heads * d.width) * kFloat);
}

Measured loss(const Card& card, Index rows, Index columns, Index vocabulary) {
  CudaDevice& device = card.training();
  const Rounded hidden(device, rows, columns);
  const Rounded weight(device, vocabulary, columns, 0.02);
  const FloatBuffer losses(rows, &device);
  const FloatBuffer dhidden(rows * columns, &device);
  const FloatBuffer dweight(vocabulary * columns, &device);
  const std::vector<std::int32_t> targets(static_cast<std::size_t>(rows), 11);
  return of_peak(timed(device, kRuns,
                       [&] {
                         models::must(device.enqueue(kernels::LinearCrossEntropy{
                             .hidden = hidden.shape(),
                             .weight = weight.shape(),
                             .targets = targets,
                             .losses = losses.data(),
                             .dhidden = dhidden.matrix(rows, columns),
                             .dweight = dweight.matrix(vocabulary, columns),
                             .hidden_rounded = hidden.matrix(),
                             .weight_rounded = weight.matrix()}));
                       }),
                 6.0 * real(rows) * real(columns) * real(vocabulary));
}

Case loss_case() {
  constexpr Index kRows = 8192;
  constexpr Index kColumns = 768;
  constexpr Index kVocabulary = 50304;
  return {
      fmt::format("linear and cross-entropy, {} rows of {} by {}", kRows, kColumns, kVocabulary),
      [](const Card& card) {
        return loss(card, sized(kRows, Index{16}), sized(kColumns, Index{32}),
                    sized(kVocabulary, Index{48}));
      }};
}

Measured sampling(const Card& card, Index rows, Index vocabulary) {
  CudaDevice& device = card.serving();
  const FloatBuffer logits(rows * vocabulary, &device);
  std::vector<float> values(static_cast<std::size_t>(rows * vocabulary));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i * 2654435761U % 100'003U) * 2e-4F;
  }
  models::must(device.upload(logits.data(), values.data(), logits.span().size_bytes()));
  kernels::TokenDraw draw;
  draw.settings.top_p = 0.9;
  const std::vector<kernels::TokenDraw> draws(static_cast<std::size_t>(rows), draw);
  const kernels::AlignedBytes chosen(draws.size() * sizeof(kernels::ChosenToken), &device);
  return of_bandwidth(card,
                      timed(device, kRuns,
                            [&] {
                              models::must(device.enqueue(kernels::ChooseTokens{
                                  logits.matrix(rows, vocabulary), draws,
                                  reinterpret_cast<kernels::ChosenToken*>(chosen.data())}));
                            }),
                      real(rows * vocabulary) * kFloat);
}

Case sampling_case() {
  constexpr Index kRows = 32;
  constexpr Index kVocabulary = 128256;
  return {fmt::format("sampling, {} rows of {}, top-p 0.9", kRows, kVocabulary),
          [](const Card& card) {
            return sampling(card, sized(kRows, Index{2}), sized(kVocabulary, Index{1500}));
          }};
}

constexpr Index kNormRows = 16384;
constexpr Index kNormWidth = 4096;

// Rows as a norm reads and writes them, and its weights.
struct NormArrays {
  explicit NormArrays(CudaDevice& device)
      : rows(sized(kNormRows, Index{5})),
        width(sized(kNormWidth, Index{64})),
        y(rows * width, &device),
        dweight(width, &device),
        dbias(width, &device) {
    for (FloatBuffer* one : {&x, &dy}) *one = drawn(device, rows * width);
    for (FloatBuffer* one : {&weight, &bias}) *one = drawn(device, width);
    for (FloatBuffer* one : {&mean, &inverse}) *one = drawn(device, rows);
  }
  Matrix of(const FloatBuffer& buffer) const { return buffer.matrix(rows, width); }
  double bytes(int arrays) const { return arrays * real(rows * width) * kFloat; }

  Index rows, width;
  FloatBuffer y, dweight, dbias;
  FloatBuffer x, dy, weight, bias, mean, inverse;
};

// `args_of` makes the op's arguments of the arrays; `moved` of these go through memory.
template <class ArgsOf>
Case norm_case(const char* name, int moved, const ArgsOf& args_of) {
  return {fmt::format("{} {}x{}", name, kNormRows, kNormWidth), [=](const Card& card) {
            CudaDevice& device = card.training();
            const NormArrays arrays(device);
            const auto args = args_of(arrays);
            return of_bandwidth(card,
                                timed(device, kRuns, [&] { models::must(device.enqueue(args)); }),
                                arrays.bytes(moved));
          }};
}

void add_norms(std::vector<Case>& cases) {
  cases.push_back(norm_case("rms norm forward", 2, [](const NormArrays& in) {
    return kernels::RmsNormForward{.x = in.of(in.x), .weight = in.weight.data(), .y = in.of(in.y)};
  }));
  cases.push_back(norm_case("rms norm backward", 3, [](const NormArrays& in) {
    return kernels::RmsNormBackward{.dy = in.of(in.dy),
                                    .x = in.of(in.x),
                                    .weight = in.weight.data(),
                                    .inverse = in.inverse.data(),
                                    .dx = in.of(in.y),
                                    .dweight = in.dweight.data()};
  }));
  cases.push_back(norm_case("layer norm forward", 2, [](const NormArrays& in) {
    return kernels::LayerNormForward{
        .x = in.of(in.x), .weight = in.weight.data(), .bias = in.bias.data(), .y = in.of(in.y)};
  }));
  cases.push_back(norm_case("layer norm backward", 3, [](const NormArrays& in) {
    return kernels::LayerNormBackward{.dy = in.of(in.dy),
                                      .x = in.of(in.x),
                                      .weight = in.weight.data(),
                                      .mean = in.mean.data(),
                                      .inverse = in.inverse.data(),
                                      .dx = in.of(in.y),
                                      .dweight = in.dweight.data(),
                                      .dbias = in.dbias.data()};
  }));
}

// A weight of so many rows and columns, and the products of few rows by it.
class QuantisedProduct {
 public:
  QuantisedProduct(CudaDevice& device, kernels::ThreadPool& pool, kernels::WeightFormat format,
                   Index outputs, Index inputs)
      : x_(drawn(device, kRows * inputs)), y_(kRows * outputs, &device), ctx_{&pool, &device} {
    const std::vector<std::byte> rows = quantised_rows(format, outputs, inputs);
    auto weight = kernels::pack_rows(ctx_, format, rows, outputs);
    models::must(weight ? Result<>() : Result<>(weight.error()));
    weight_ = std::make_unique<kernels::QuantisedWeight>(*std::move(weight));
    bytes_ = rows.size();
  }

  void run() const {
    models::must(
        kernels::product_quantised(ctx_, {.left = x_.matrix(kRows, weight_->inputs()),
                                          .right = weight_.get(),
                                          .output = y_.matrix(kRows, weight_->outputs())}));
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr Index kRows = 8;
  FloatBuffer x_, y_;
  const kernels::OpContext ctx_;
  std::unique_ptr<kernels::QuantisedWeight> weight_;
  std::size_t bytes_ = 0;
};

// One layer's seven products of an 8B-shaped decoder one after the other, as a step launches them,
// eight sequences: against reading the weights.
Case quantised_case(kernels::WeightFormat format) {
  return {fmt::format("decode products, a layer of 8B, {}, 8 rows", kernels::to_string(format)),
          [format](const Card& card) {
            const Index width = sized(Index{4096}, Index{256});
            const Index inner = sized(Index{14336}, Index{512});
            const Index keys = width / 4;
            kernels::ThreadPool pool(
                static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 16U)));
            std::vector<QuantisedProduct> layer;
            for (const Index outputs : {width, keys, keys, width, inner, inner}) {
              layer.emplace_back(card.serving(), pool, format, outputs, width);
            }
            layer.emplace_back(card.serving(), pool, format, width, inner);
            std::size_t bytes = 0;
            for (const QuantisedProduct& one : layer) bytes += one.bytes();
            return of_bandwidth(card,
                                timed(card.serving(), kRuns,
                                      [&] {
                                        for (const QuantisedProduct& one : layer) one.run();
                                      }),
                                static_cast<double>(bytes));
          }};
}

double copy_bandwidth(CudaDevice& device) {
  const Index count = sized(Index{256} << 20, Index{1} << 10);
  const FloatBuffer from = drawn(device, count);
  const FloatBuffer to(count, &device);
  const std::size_t bytes = from.span().size_bytes();
  const auto seconds =
      timed(device, 20, [&] { models::must(device.copy(to.data(), from.data(), bytes)); });
  return 2.0 * static_cast<double>(bytes) / seconds[seconds.size() / 2];
}

}  // namespace

void set_extent(Extent extent) { chosen_extent = extent; }
Extent extent() { return chosen_extent; }

Result<Card> Card::open() {
  using Graphs = kernels::cuda::DeviceOptions::Graphs;
  Card card;
  auto training = CudaDevice::open({.inputs = Inputs::bf16});
  if (!training) return training.error();
  auto serving = CudaDevice::open({});
  if (!serving) return serving.error();
  auto plain = CudaDevice::open({.graphs = Graphs::off});
  if (!plain) return plain.error();
  card.training_ = *std::move(training);
  card.serving_ = *std::move(serving);
  card.without_graphs_ = *std::move(plain);
  card.bandwidth_ = copy_bandwidth(*card.training_);
  return card;
}

double Measured::at(double quantile) const {
  const auto last = static_cast<double>(seconds.size() - 1);
  return seconds[static_cast<std::size_t>(quantile * last + 0.5)];
}

Measured of_bandwidth(const Card& card, std::vector<double> seconds, double work) {
  Measured out{std::move(seconds), 0, "copy bandwidth"};
  out.share = work / out.at(0.5) / card.bandwidth();
  return out;
}

Measured of_peak(std::vector<double> seconds, double work) {
  Measured out{std::move(seconds), 0, "989 TFLOP/s"};
  out.share = work / out.at(0.5) / kBf16Peak;
  return out;
}

std::vector<double> timed(CudaDevice& device, int runs, const std::function<void()>& body) {
  auto from = kernels::cuda::make_event(kernels::cuda::Timing::on);
  auto to = kernels::cuda::make_event(kernels::cuda::Timing::on);
  std::vector<double> seconds;
  for (int run = sized(-kWarmUp, 0); run < sized(runs, 1); ++run) {
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

std::vector<Case> kernel_cases() {
  std::vector<Case> cases{product_case(8192, 4096, 4096), product_case(8192, 14336, 4096)};
  for (const Heads& h : {Heads{4, 4096, 32, 128}, Heads{16, 1024, 12, 64}}) {
    cases.push_back({"attention forward " + h.text(),
                     [h](const Card& card) { return attention_forward(card, h); }});
    cases.push_back({"attention backward " + h.text(),
                     [h](const Card& card) { return attention_backward(card, h); }});
  }
  for (const Decode& d : {Decode{8, 1024, 32, 8, 128}, Decode{1, 8192, 32, 8, 128}}) {
    cases.push_back({d.name(), [d](const Card& card) { return decode_attention(card, d); }});
  }
  cases.push_back(loss_case());
  cases.push_back(sampling_case());
  add_norms(cases);
  for (const auto format : {kernels::WeightFormat::int8_channel, kernels::WeightFormat::q4_0}) {
    cases.push_back(quantised_case(format));
  }
  return cases;
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

// Training steps on the GPU.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "jobs/models/families/family.h"
#include "jobs/models/layer.h"
#include "jobs/models/training_pass.h"
#include "jobs/optimizers/optimizer.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/tensor/thread_pool.h"
#include "ops/bench/gpu/cases.h"
#include "ops/bench/gpu/operands.h"

namespace tutti::bench::gpu {

namespace {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::cuda::CudaDevice;

constexpr std::uint32_t kLength = 1024;
constexpr std::uint32_t kVocabulary = 50304;
constexpr int kRuns = 10;
// Of a step: an update moves as much memory whatever the tokens, and runs train with many.
constexpr int kMicroBatches = 4;

std::uint32_t length_of_sample() { return sized(kLength, 16U); }

struct Shape {
  const char* name;
  std::uint32_t layers, width, heads;
  std::uint32_t samples;  // of a micro-batch

  Shape in_extent() const { return sized(*this, {name, 2, 32, 2, 2}); }
  std::uint32_t tokens() const { return samples * length_of_sample(); }
};

models::Decoder decoder_of(const Shape& shape) {
  models::DecoderDescription description = models::find_family("gpt2")->parts();
  description.layers = shape.layers;
  description.width = shape.width;
  description.heads = description.kv_heads = shape.heads;
  description.head_dim = shape.width / shape.heads;
  description.feed_forward = 4 * shape.width;
  description.vocabulary = sized(kVocabulary, 64U);
  description.positions_max = length_of_sample();
  description.tied = true;
  auto decoder = models::Decoder::create(description);
  models::must(decoder ? Result<>() : Result<>(decoder.error()));
  return *std::move(decoder);
}

// Weights, gradients and the optimizer's states: cleared, summed up for the norm and updated as the
// trainer does it, the norm's sums and the block hashes brought to the host.
class Update {
 public:
  Update(const models::ParameterLayout& layout, CudaDevice& device)
      : layout_(layout),
        device_(device),
        weights_(static_cast<Index>(layout.elements()), &device),
        gradients_(static_cast<Index>(layout.gradient_elements()), &device),
        first_(weights_.size(), &device),
        second_(weights_.size(), &device),
        device_hashes_(static_cast<Index>(4 * layout.blocks().size()), &device),
        device_squares_(static_cast<Index>(2 * layout.blocks().size()), &device),
        hashes_(layout.blocks().size()),
        squares_(layout.blocks().size()) {
    initialise(device, layout, weights_.span());
    fill(device, gradients_.span(), 1e-3);
  }

  std::span<float> weights() const { return weights_.span(); }
  std::span<float> gradients() const { return gradients_.span(); }

  void clear() { models::must(kernels::clear({&pool_, &device_}, gradients_.span())); }

  // The trainer needs it before the update: it clips by the norm.
  void sum_squares() {
    const std::span<double> sums(reinterpret_cast<double*>(device_squares_.data()),
                                 squares_.size());
    const std::span<const float> gradients = gradients_.span();
    const std::span<const models::GridBlock> blocks = layout_.blocks();
    std::vector<kernels::SquareRange> all;
    for (std::size_t first = 0; first < blocks.size();) {
      std::size_t last = first;
      std::size_t elements = 0;
      for (; last < blocks.size() && blocks[last].parameter == blocks[first].parameter; ++last) {
        elements += blocks[last].elements;
      }
      all.push_back({gradients.subspan(static_cast<std::size_t>(blocks[first].offset), elements),
                     sums.subspan(first, last - first)});
      first = last;
    }
    models::must(kernels::square_sums({&pool_, &device_}, {.ranges = all}));
    models::must(device_.download(squares_.data(), sums.data(), sums.size_bytes()));
  }

  void run() {
    auto* const blocks = reinterpret_cast<kernels::Hash128*>(device_hashes_.data());
    const std::vector<std::span<float>> states{first_.span(), second_.span()};
    models::must(optimizers::kAdamW.update(
        {&pool_, &device_}, settings_,
        {.layout = layout_,
         .weights = weights_.span(),
         .gradients = gradients_.span().first(static_cast<std::size_t>(layout_.elements())),
         .states = states,
         .block_hashes = {blocks, hashes_.size()},
         .step = 1,
         .rate = 1e-4}));
    models::must(device_.download(hashes_.data(), blocks, hashes_.size() * sizeof(hashes_[0])));
  }

 private:
  const models::ParameterLayout& layout_;
  CudaDevice& device_;
  kernels::ThreadPool pool_{1};
  const spec::OptimizerSpec settings_;
  FloatBuffer weights_, gradients_, first_, second_, device_hashes_, device_squares_;
  std::vector<kernels::Hash128> hashes_;
  std::vector<double> squares_;
};

Measured optimizer(const Card& card, const Shape& named) {
  const models::Decoder decoder = decoder_of(named.in_extent());
  Update update(decoder.layout(), card.training());
  return of_bandwidth(card, timed(card.training(), 50, [&] { update.run(); }),
                      7.0 * static_cast<double>(decoder.layout().elements()) * sizeof(float));
}

enum class Part { pass, whole_step };

Measured step(const Card& card, const Shape& named, Part part) {
  const Shape shape = named.in_extent();
  const models::Decoder decoder = decoder_of(shape);
  const models::ParameterLayout& layout = decoder.layout();
  CudaDevice& device = card.training();
  // As a job in bf16 has it.
  models::TrainingPass pass(decoder, {.rows_max = shape.tokens(), .samples_max = shape.samples},
                            &device, models::Recompute::none, models::Kept::attention);
  models::RoundedWeights rounded(layout, device);
  Update update(layout, device);
  std::vector<std::int32_t> ids(shape.tokens());
  for (std::uint32_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(i * 7919U % decoder.description().vocabulary);
  std::vector<std::int32_t> offsets;
  for (std::uint32_t s = 0; s <= shape.samples; ++s)
    offsets.push_back(static_cast<std::int32_t>(s * length_of_sample()));
  std::vector<models::SampleLoss> losses(shape.samples);
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool, &device};
  const int micros = part == Part::whole_step ? kMicroBatches : 1;
  // A step's micro-batches share them.
  const auto round = [&] { models::must(rounded.round(update.weights())); };
  round();
  const auto seconds = timed(device, kRuns, [&] {
    if (part == Part::whole_step) {
      update.clear();
      round();
    }
    for (int micro = 0; micro < micros; ++micro) {
      models::must(pass.forward_backward(
          ctx, {update.weights(), rounded.data()},
          {.tokens = ids, .targets = ids, .positions = {}, .offsets = offsets}, update.gradients(),
          losses));
    }
    if (part == Part::pass) return;
    pass.finish_shard(ctx, update.gradients());
    update.sum_squares();
    update.run();
  });
  const auto tokens = static_cast<double>(shape.tokens()) * micros;
  const double by_weight = 6.0 * static_cast<double>(layout.parameter_count()) * tokens;
  const double by_attention = 6.0 * shape.layers * tokens * length_of_sample() * shape.width;
  Measured out = of_peak(seconds, by_weight + by_attention);
  out.ceiling += " (MFU)";
  return out;
}

}  // namespace

std::vector<Case> training_cases() {
  std::vector<Case> cases;
  // Samples as `train.micro: auto` takes them.
  for (const Shape& shape :
       {Shape{"GPT-2 124M", 12, 768, 12, 8}, Shape{"GPT-2 1.5B", 48, 1600, 25, 3}}) {
    cases.push_back({fmt::format("{} AdamW", shape.name),
                     [shape](const Card& card) { return optimizer(card, shape); }});
    cases.push_back({fmt::format("{} forward and backward, {} tokens", shape.name, shape.tokens()),
                     [shape](const Card& card) { return step(card, shape, Part::pass); }});
    cases.push_back({fmt::format("{} step with AdamW, {} times {} tokens", shape.name,
                                 kMicroBatches, shape.tokens()),
                     [shape](const Card& card) { return step(card, shape, Part::whole_step); }});
  }
  return cases;
}

}  // namespace tutti::bench::gpu

// Every barrier and wait of the kernels is needed, and would be missed: left out one at a time,
// each shows in the numbers or as a fault in some order of the threads. Nothing else would tell
// that the cases are large enough, and the orders mixed enough, for a barrier that somebody
// forgets.
#include <sys/wait.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "kernels/cuda/device.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/emulation/device_runs.h"
#include "tests/support/cuda_emulation/dropped_waits.h"

namespace tutti::kernels::cuda {
namespace {

using emulation::Order;
using emulation::WaitName;
using tutti::test::draw;
using tutti::test::Floats;
using Inputs = Products::Inputs;

CudaDevice& device(Inputs inputs) {
  static const auto exact = tutti::test::open_device_for(Inputs::fp32);
  static const auto coarse = tutti::test::open_device_for(Inputs::bf16);
  static const auto codes = tutti::test::open_device_for(Inputs::fp8);
  if (inputs == Inputs::fp8) return *codes;
  return inputs == Inputs::fp32 ? *exact : *coarse;
}

struct Case {
  const char* name;
  std::function<Floats()> run;
};

Floats norm() {
  constexpr Index kRows = 2;
  constexpr Index kColumns = 200;
  const Floats x = draw(kRows * kColumns, 1);
  const Floats weight = draw(kColumns, 2);
  Floats out(x.size());
  static_cast<void>(device(Inputs::fp32)
                        .enqueue(RmsNormForward{.x = ConstMatrix(x.data(), kRows, kColumns),
                                                .weight = weight.data(),
                                                .y = Matrix(out.data(), kRows, kColumns)}));
  return out;
}

Floats norm_gradient() {
  constexpr Index kRows = 40;
  constexpr Index kColumns = 200;
  const Floats x = draw(kRows * kColumns, 1);
  const Floats dy = draw(kRows * kColumns, 2);
  const Floats weight = draw(kColumns, 3);
  const Floats inverse(kRows, 1.5F);
  Floats out(x.size() + static_cast<std::size_t>(kColumns));
  static_cast<void>(
      device(Inputs::fp32)
          .enqueue(RmsNormBackward{.dy = ConstMatrix(dy.data(), kRows, kColumns),
                                   .x = ConstMatrix(x.data(), kRows, kColumns),
                                   .weight = weight.data(),
                                   .inverse = inverse.data(),
                                   .dx = Matrix(out.data() + kColumns, kRows, kColumns),
                                   .dweight = out.data()}));
  return out;
}

// Two sums in a row through the same shared memory.
Floats two_sums() {
  constexpr Index kRows = 2;
  constexpr Index kColumns = 200;
  const Floats x = draw(kRows * kColumns, 1);
  const Floats weight = draw(kColumns, 2);
  Floats out(x.size());
  Floats mean(kRows);
  Floats inverse(kRows);
  static_cast<void>(device(Inputs::fp32)
                        .enqueue(LayerNormForward{.x = ConstMatrix(x.data(), kRows, kColumns),
                                                  .weight = weight.data(),
                                                  .bias = weight.data(),
                                                  .y = Matrix(out.data(), kRows, kColumns),
                                                  .mean = mean.data(),
                                                  .inverse = inverse.data()}));
  return out;
}

void append(Floats& numbers, const Hash128& hash) {
  for (const std::uint64_t half : {hash.low, hash.high}) {
    for (int shift = 0; shift < 64; shift += 16) {
      numbers.push_back(static_cast<float>(half >> shift & 0xffff));
    }
  }
}

Floats update_of_8_bits() {
  constexpr Index kCount = 3000;
  Floats weight = draw(kCount, 1);
  const Floats gradient = draw(kCount, 2);
  const auto blocks = static_cast<std::size_t>(state8_blocks(kCount));
  std::vector<std::int8_t> first(weight.size());
  std::vector<std::uint8_t> second(weight.size());
  Floats first_scales(blocks);
  Floats second_scales(blocks);
  const AdamW8Range range{.settings = {},
                          .weight = weight,
                          .gradient = gradient,
                          .first = first,
                          .second = second,
                          .first_scales = first_scales,
                          .second_scales = second_scales};
  static_cast<void>(device(Inputs::fp32).enqueue(AdamW8Update{.ranges = {&range, 1}}));
  weight.insert(weight.end(), first.begin(), first.end());
  weight.insert(weight.end(), second.begin(), second.end());
  return weight;
}

Floats loss() {
  constexpr Index kRows = 3;
  constexpr Index kVocabulary = 700;
  constexpr Index kColumns = 8;
  const Floats hidden = draw(kRows * kColumns, 1);
  const Floats weight = draw(kVocabulary * kColumns, 2);
  const std::vector<std::int32_t> targets{5, 640, 300};
  Floats out(static_cast<std::size_t>(kRows + kRows * kColumns));
  static_cast<void>(
      device(Inputs::fp32)
          .enqueue(LinearCrossEntropy{.hidden = ConstMatrix(hidden.data(), kRows, kColumns),
                                      .weight = ConstMatrix(weight.data(), kVocabulary, kColumns),
                                      .targets = targets,
                                      .losses = out.data(),
                                      .dhidden = Matrix(out.data() + kRows, kRows, kColumns)}));
  return out;
}

Floats update() {
  constexpr Index kCount = 3000;
  Floats weight = draw(kCount, 1);
  const Floats gradient = draw(kCount, 2);
  Floats first(weight.size());
  Floats second(weight.size());
  std::vector<Hash128> hashes(1);
  const AdamWRange range{{}, weight, gradient, first, second, hashes};
  static_cast<void>(device(Inputs::fp32).enqueue(AdamWUpdate{.ranges = {&range, 1}}));
  append(weight, hashes[0]);
  return weight;
}

// Sums of sums by one block, twice through the same shared memory.
Floats update_by_rows_and_columns() {
  constexpr Index kRows = 90;
  constexpr Index kColumns = 200;
  Floats weight = draw(kRows * kColumns, 1);
  const Floats gradient = draw(kRows * kColumns, 2);
  Floats row(kRows);
  Floats column(kColumns);
  std::vector<Hash128> hashes(1);
  static_cast<void>(device(Inputs::fp32)
                        .enqueue(AdafactorUpdate{.settings = {.rate = 0.1, .size_min = 1e-3},
                                                 .weight = Matrix(weight.data(), kRows, kColumns),
                                                 .gradient = {gradient.data(), kRows, kColumns},
                                                 .row = row,
                                                 .column = column,
                                                 .hashes = hashes}));
  append(weight, hashes[0]);
  return weight;
}

// A tall matrix, which is turned on its way.
Floats orthogonal_update() {
  constexpr Index kRows = 70;
  constexpr Index kColumns = 40;
  Floats weight = draw(kRows * kColumns, 1);
  const Floats gradient = draw(kRows * kColumns, 2);
  Floats velocity = draw(kRows * kColumns, 3);
  static_cast<void>(device(Inputs::fp32)
                        .enqueue(MuonUpdate{.settings = {.rate = 1.0},
                                            .weight = Matrix(weight.data(), kRows, kColumns),
                                            .gradient = {gradient.data(), kRows, kColumns},
                                            .velocity = Matrix(velocity.data(), kRows, kColumns)}));
  return weight;
}

AttentionShape shape_of(Index heads, Index kv_heads, Index width) {
  return {heads, kv_heads, width, 1.0F / std::sqrt(static_cast<float>(width))};
}

Floats attention_forward(Inputs inputs, Index width) {
  constexpr Index kTokens = 130;
  const Floats q = draw(kTokens * width, 1);
  const Floats k = draw(kTokens * width, 2);
  const Floats v = draw(kTokens * width, 3);
  const std::vector<std::int32_t> offsets{0, kTokens};
  Floats out(q.size());
  static_cast<void>(
      device(inputs).enqueue(AttentionForward{.shape = shape_of(1, 1, width),
                                              .q = ConstMatrix(q.data(), kTokens, width),
                                              .k = ConstMatrix(k.data(), kTokens, width),
                                              .v = ConstMatrix(v.data(), kTokens, width),
                                              .sample_offsets = offsets,
                                              .out = Matrix(out.data(), kTokens, width)}));
  return out;
}

// Single rows of several query heads that share a key head; `sequences` of them.
Floats decoding(Index sequences) {
  constexpr Index kTokens = 210;
  constexpr Index kWidth = 8;
  AttentionShape shape = shape_of(4, 1, kWidth);
  const Floats q = draw(sequences * shape.heads * kWidth, 1);
  const Floats k = draw(kTokens * kWidth, 2);
  const Floats v = draw(kTokens * kWidth, 3);
  Floats memory(static_cast<std::size_t>(kv_pages_for(kTokens) * kv_page_floats(shape)));
  std::vector<float*> pages;
  for (Index page = 0; page < kv_pages_for(kTokens); ++page) {
    pages.push_back(memory.data() + page * kv_page_floats(shape));
  }
  const SequenceRows all{0, kTokens, 0, pages};
  static_cast<void>(
      device(Inputs::fp32)
          .enqueue(KeyValueWrite{shape, ConstMatrix(k.data(), kTokens, kWidth),
                                 ConstMatrix(v.data(), kTokens, kWidth), std::span(&all, 1)}));
  std::vector<SequenceRows> rows;
  for (Index s = 0; s < sequences; ++s) rows.push_back({s, 1, kTokens - 1 - s, pages});
  Floats out(q.size());
  const Index wide = shape.heads * kWidth;
  static_cast<void>(device(Inputs::fp32)
                        .enqueue(AttentionCached{shape, ConstMatrix(q.data(), sequences, wide),
                                                 rows, Matrix(out.data(), sequences, wide)}));
  return out;
}

Floats attention_backward(Inputs inputs, Index width) {
  constexpr Index kTokens = 130;
  const std::size_t size = static_cast<std::size_t>(kTokens * width);
  const auto rows = [&](float* data) { return Matrix(data, kTokens, width); };
  Floats q = draw(kTokens * width, 1);
  Floats k = draw(kTokens * width, 2);
  Floats v = draw(kTokens * width, 3);
  Floats o = draw(kTokens * width, 4);
  Floats slope = draw(kTokens * width, 5);
  const Floats lse(kTokens, 5.0F);
  const std::vector<std::int32_t> offsets{0, kTokens};
  Floats out(3 * size);
  static_cast<void>(device(inputs).enqueue(AttentionBackward{.shape = shape_of(1, 1, width),
                                                             .q = rows(q.data()),
                                                             .k = rows(k.data()),
                                                             .v = rows(v.data()),
                                                             .out = rows(o.data()),
                                                             .dout = rows(slope.data()),
                                                             .lse = lse.data(),
                                                             .sample_offsets = offsets,
                                                             .dq = rows(out.data()),
                                                             .dk = rows(out.data() + size),
                                                             .dv = rows(out.data() + 2 * size)}));
  return out;
}

Floats quantised(WeightFormat format, Activations activations) {
  constexpr Index kRows = 9;
  constexpr Index kOutputs = 40;
  constexpr Index kInputs = 1536;
  static ThreadPool pool(1);
  const OpContext here{&pool, &device(Inputs::fp32)};
  const Floats values = draw(kOutputs * kInputs, 2);
  const Floats x = draw(kRows * kInputs, 1);
  const auto weight = quantise_weight(here, format, ConstMatrix(values.data(), kOutputs, kInputs));
  REQUIRE(weight);
  Floats out(static_cast<std::size_t>(kRows * kOutputs));
  static_cast<void>(product_quantised(here, {.left = ConstMatrix(x.data(), kRows, kInputs),
                                             .right = &*weight,
                                             .output = Matrix(out.data(), kRows, kOutputs),
                                             .activations = activations}));
  return out;
}

Floats quantised_gradient() {
  constexpr Index kRows = 9;
  constexpr Index kOutputs = 140;
  constexpr Index kInputs = 96;
  static ThreadPool pool(1);
  const OpContext here{&pool, &device(Inputs::fp32)};
  const Floats values = draw(kOutputs * kInputs, 2);
  const Floats dy = draw(kRows * kOutputs, 1);
  const auto weight =
      quantise_weight(here, WeightFormat::q8_0, ConstMatrix(values.data(), kOutputs, kInputs));
  REQUIRE(weight);
  Floats out(static_cast<std::size_t>(kRows * kInputs));
  static_cast<void>(product_quantised_nn(here, {.left = ConstMatrix(dy.data(), kRows, kOutputs),
                                                .right = &*weight,
                                                .output = Matrix(out.data(), kRows, kInputs)}));
  return out;
}

// Tiles of rows, the last one short, of which a block takes several.
Floats fp8_codes() {
  constexpr Index kRows = 80;
  constexpr Index kColumns = 48;
  const Floats weight = draw(kRows * kColumns, 1);
  std::vector<std::uint8_t> codes(2 * weight.size());
  Floats out(kRows + kColumns);
  const Fp8Weight to{{codes.data(), out.data()},
                     {codes.data() + weight.size(), out.data() + kRows}};
  static_cast<void>(device(Inputs::fp8).make_fp8(ConstMatrix(weight.data(), kRows, kColumns), to));
  out.insert(out.end(), codes.begin(), codes.end());
  return out;
}

Floats sampling() {
  constexpr Index kVocabulary = 2600;
  std::vector<TokenDraw> draws;
  for (const SamplingSettings& settings :
       {SamplingSettings{.temperature = 0.0},
        {.temperature = 5.0, .seed = 3},
        {.temperature = 1.0, .top_k = 5, .seed = 4},
        {.temperature = 1.3, .top_p = 0.7, .seed = 5},
        {.temperature = 5.0, .top_p = 0.95, .seed = 6},
        {.temperature = 2.0, .top_k = 2000, .seed = 7},
        {.temperature = 3.0, .top_k = 1500, .top_p = 0.98, .seed = 8}}) {
    for (std::uint64_t position = 0; position < 2; ++position) {
      draws.push_back({.settings = settings, .position = position, .logprob = position == 1});
    }
  }
  const auto rows = static_cast<Index>(draws.size());
  Floats logits = draw(rows * kVocabulary, 9);
  for (float& logit : logits) logit = std::round(logit * 200.0F) / 40.0F;
  std::vector<ChosenToken> chosen(draws.size());
  // Of other rows first, so that scratch memory does not hold what this launch leaves there.
  Floats others(logits.rbegin(), logits.rend());
  for (const Floats* const from : {&others, &logits}) {
    static_cast<void>(device(Inputs::fp32)
                          .enqueue(ChooseTokens{ConstMatrix(from->data(), rows, kVocabulary), draws,
                                                chosen.data()}));
  }
  Floats out;
  for (const ChosenToken& one : chosen) {
    out.push_back(static_cast<float>(one.token));
    out.push_back(one.logprob);
  }
  return out;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"norm", norm},
      {"norm's gradient", norm_gradient},
      {"two sums", two_sums},
      {"update of 8 bits", update_of_8_bits},
      {"loss", loss},
      {"update", update},
      {"update by rows and columns", update_by_rows_and_columns},
      {"orthogonal update", orthogonal_update},
      {"attention", [] { return attention_forward(Inputs::fp32, 8); }},
      {"attention on tensor cores", [] { return attention_forward(Inputs::bf16, 64); }},
      {"decoding", [] { return decoding(2); }},
      {"gradients", [] { return attention_backward(Inputs::fp32, 8); }},
      {"gradients on tensor cores", [] { return attention_backward(Inputs::bf16, 64); }},
      {"8-bit weights", [] { return quantised(WeightFormat::q8_0, Activations::int8); }},
      {"4-bit weights", [] { return quantised(WeightFormat::q4_k, Activations::int8); }},
      {"a scale a channel",
       [] { return quantised(WeightFormat::int8_channel, Activations::int8); }},
      {"exact activations", [] { return quantised(WeightFormat::nf4, Activations::exact); }},
      {"gradient by 8-bit weights", quantised_gradient},
      {"codes of fp8", fp8_codes},
      {"sampling", sampling},
  };
  return kCases;
}

bool same(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr const char* kCaseVariable = "TUTTI_DROPPED_CASE";
constexpr const char* kWaitVariable = "TUTTI_DROPPED_WAIT";
constexpr int kNoticed = 7;
constexpr int kSecondsOfWorkMax = 6;  // a kernel that goes round forever is noticed, too

// In a process of its own: without a barrier a kernel may go anywhere, or nowhere.
bool shows(const Case& c, const WaitName& wait) {
  const std::string own = std::filesystem::read_symlink("/proc/self/exe").string();
  ::setenv(kCaseVariable, c.name, 1);
  ::setenv(kWaitVariable, wait.c_str(), 1);
  const std::string command = "ulimit -c 0; ulimit -t " + std::to_string(kSecondsOfWorkMax) +
                              "; exec '" + own + "' 'dropped waits alone' >/dev/null 2>&1";
  const int status = std::system(command.c_str());
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// Those that are written in the kernels; not those whose line says why nobody would miss them here.
constexpr const char* kSpare = "// spare";

std::set<WaitName> waits_in_sources() {
  std::set<WaitName> out;
  const std::filesystem::path root = std::filesystem::path(TUTTI_SOURCE) / "kernels/cuda";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().filename() == "async_copy.h") continue;  // says what they are
    std::ifstream lines(entry.path());
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      for (const char* const wait : {"__syncthreads(", "__syncwarp(", "wait_async_copies<"}) {
        if (line.find(wait) == std::string::npos) continue;
        if (line.find(kSpare) != std::string::npos) continue;
        out.insert(entry.path().filename().string() + ":" + std::to_string(number));
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("dropped waits alone", "[.]") {
  const char* const name = std::getenv(kCaseVariable);
  const char* const wait = std::getenv(kWaitVariable);
  if (name == nullptr || wait == nullptr) return;  // somebody ran hidden cases, too
  const auto c = std::ranges::find_if(
      cases(), [&](const Case& each) { return each.name == std::string(name); });
  REQUIRE(c != cases().end());
  const Floats expected = c->run();
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    for (const auto kind : {Order::Kind::warp_priority, Order::Kind::random}) {
      emulation::set_order({kind, seed});
      emulation::watch_waits(wait);
      const Floats got = c->run();
      emulation::end_watching();
      if (!emulation::device_fault().empty() || !same(got, expected)) std::_Exit(kNoticed);
    }
  }
}

TEST_CASE("dropped waits: each barrier and wait of the kernels is missed when it is not there") {
  const std::set<WaitName> needed = waits_in_sources();
  REQUIRE(needed.size() > 30);
  std::set<WaitName> unseen = needed;
  std::map<WaitName, bool> missed;
  for (const Case& c : cases()) {
    emulation::set_order({});
    emulation::watch_waits();
    static_cast<void>(c.run());
    const std::set<WaitName> met = emulation::end_watching();
    REQUIRE(emulation::device_fault() == "");
    CHECK_FALSE(met.empty());
    for (const WaitName& wait : met) {
      if (!needed.contains(wait)) continue;
      unseen.erase(wait);
      bool& shown = missed[wait];
      shown = shown || shows(c, wait);
    }
  }
  emulation::set_order({});
  for (const auto& [wait, shown] : missed) {
    INFO(wait);
    CHECK(shown);
  }
  for (const WaitName& wait : unseen) {
    INFO(wait << " is met by no case");
    CHECK(false);
  }
}

}  // namespace tutti::kernels::cuda

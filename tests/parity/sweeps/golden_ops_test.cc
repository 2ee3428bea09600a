// The bits of what the other suites compare with formulas only: draws, roundings, pages, hashes,
// blocks of quantised weights, frequencies, chosen tokens. Rows of tests/golden/portable.txt.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/sampling.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// Bytes as the numbers that a golden row takes; zeros fill the last one.
template <class Of>
Floats as_floats(std::span<const Of> values) {
  Floats floats((values.size_bytes() + sizeof(float) - 1) / sizeof(float));
  std::memcpy(floats.data(), values.data(), values.size_bytes());
  return floats;
}

}  // namespace

TEST_CASE("golden: uniform draws") {
  Golden golden("fill uniform");
  for (const Index size : {0, 1, 5, 10001}) {
    on_all_paths(golden, [&](const OpContext& ctx) {
      Floats out(size_of(size));
      REQUIRE(fill_uniform(
          ctx, {.key = {1, 2}, .first_index = 3, .low = -3.0, .high = 5.0, .out = out}));
      return out;
    });
  }
  golden.check();
}

TEST_CASE("golden: nearest bf16, with ties, denormals and infinities") {
  Golden golden("nearest bf16");
  Floats x = draw(4099, 1);
  for (std::size_t i = 0; i < 1000; ++i) {
    x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i * 4194301U & 0x7fffffffU));
    if (std::isnan(x[i])) x[i] = -std::numeric_limits<float>::infinity();
  }
  on_all_paths(golden, [&](const OpContext& ctx) {
    std::vector<Bf16> to(x.size());
    REQUIRE(to_bf16(ctx, x, to));
    Floats wide(x.size());
    REQUIRE(from_bf16(ctx, to, wide));
    return wide;
  });
  golden.check();
}

TEST_CASE("golden: pages of keys and values, written in two pieces") {
  Golden golden("kv write");
  constexpr Index kRows = 70;
  for (const CacheType cache : {CacheType::f32, CacheType::bf16, CacheType::int8}) {
    for (const Index width : {8, 64}) {
      const AttentionShape shape{
          .heads = 2, .kv_heads = 2, .head_width = width, .scale = 1.0F, .cache = cache};
      const Floats k = draw(kRows * 2 * width, 1);
      const Floats v = draw(kRows * 2 * width, 2);
      on_all_paths(golden, [&](const OpContext& ctx) {
        const Index page = kv_page_floats(shape);
        FloatBuffer memory(2 * page);
        float* pages[] = {memory.data(), memory.data() + page};
        for (const auto& [first, count] : {std::pair<Index, Index>{0, 60}, {60, 10}}) {
          const SequenceRows rows{0, count, first, pages};
          REQUIRE(kv_write(
              ctx, {shape, matrix(k, kRows, 2 * width).row_range(first, count),
                    matrix(v, kRows, 2 * width).row_range(first, count), std::span(&rows, 1)}));
        }
        return Floats(memory.span().begin(), memory.span().end());
      });
    }
  }
  golden.check();
}

TEST_CASE("golden: hashes of weights") {
  Golden golden("weight hash");
  for (const Index size : {0, 1, 65536, 65537}) {
    const Floats values = draw(size, 1);
    on_all_paths(golden, [&](const OpContext& ctx) {
      std::vector<Hash128> hashes(size_of(grid_blocks(size)));
      REQUIRE(hash_blocks(ctx, values, hashes));
      return as_floats(std::span<const Hash128>(hashes));
    });
  }
  golden.check();
}

TEST_CASE("golden: codes of quantised rows and their values, format by format") {
  for (const WeightFormat format : kWeightFormats) {
    Golden golden("quantise " + std::string(to_string(format)));
    for (const std::uint64_t stream : {1U, 2U, 3U}) {
      Floats values = draw(512, stream);
      if (stream == 2) {
        for (std::size_t i = 0; i < 64; ++i) values[i] = 0.0F;  // blocks without a scale
      }
      if (stream == 3) {
        for (float& value : values) value *= 1e-3F;
      }
      std::vector<std::byte> row(row_bytes(format, 512));
      REQUIRE(quantise_row(format, values, row));
      golden.add(as_floats(std::span<const std::byte>(row)));
      REQUIRE(dequantise_row(format, row, values));
      golden.add(values);
    }
    golden.check();
  }
}

TEST_CASE("golden: products by quantised weights and exact activations") {
  Golden golden("product quantised, exact");
  for (const WeightFormat format : kWeightFormats) {
    const Floats weight = draw(70 * 256, 1);
    for (const Index rows : {1, 4, 13}) {
      const Floats x = draw(rows * 256, 2);
      on_all_paths(golden, [&](const OpContext& ctx) {
        const auto packed = quantise_weight({.pool = ctx.pool}, format, matrix(weight, 70, 256));
        REQUIRE(packed);
        Floats out(size_of(rows * 70));
        REQUIRE(product_quantised(ctx, {.left = matrix(x, rows, 256),
                                        .right = &*packed,
                                        .output = matrix(out, rows, 70),
                                        .activations = Activations::exact}));
        return out;
      });
    }
  }
  golden.check();
}

TEST_CASE("golden: rows of int8 with their scales, among them zeros and one that is not finite") {
  Golden golden("int8 rows");
  Floats x = draw(7 * 45, 1);
  std::fill_n(x.begin() + 45, 45, 0.0F);
  x[2 * 45 + 3] = std::numeric_limits<float>::infinity();
  x[3 * 45 + 3] = 1e30F;
  on_all_paths(golden, [&](const OpContext& ctx) {
    std::vector<std::int8_t> codes(x.size());
    Floats scales(7);
    REQUIRE(to_int8_rows(
        ctx,
        {.x = matrix(x, 7, 45), .codes = {codes.data(), 7, 45}, .scales = matrix(scales, 7, 1)}));
    for (float& scale : scales) {
      if (std::isnan(scale)) scale = -1.0F;  // which NaN is not promised
    }
    Floats all = as_floats(std::span<const std::int8_t>(codes));
    all.insert(all.end(), scales.begin(), scales.end());
    return all;
  });
  golden.check();
}

TEST_CASE("golden: schedule-free's average") {
  Golden golden("schedule-free average");
  for (const Index size : {0, 1, 17, 65536 + 1003}) {
    const Floats weight = draw(size, 1);
    const Floats base = draw(size, 2);
    on_all_paths(golden, [&](const OpContext& ctx) {
      Floats average(weight.size());
      REQUIRE(schedule_free_average(ctx, {0.9, weight, base, average}));
      return average;
    });
  }
  golden.check();
}

// Kept files hold these images: where one of these hashes changes, the images' version does too.
TEST_CASE("golden: images of packed weights, byte by byte") {
  for (const WeightFormat format : kWeightFormats) {
    Golden golden("image " + std::string(to_string(format)) + ", version " +
                  std::to_string(kQuantisedImageVersion));
    for (const Index outputs : {1, 70}) {
      const Floats weight = draw(outputs * 512, 1);
      const std::size_t row = row_bytes(format, 512);
      std::vector<std::byte> rows(size_of(outputs) * row);
      for (std::size_t o = 0; o < size_of(outputs); ++o) {
        REQUIRE(quantise_row(format, std::span(weight).subspan(o * 512, 512),
                             std::span(rows).subspan(o * row, row)));
      }
      on_all_paths(golden, [&](const OpContext& ctx) {
        const auto packed =
            quantise_weight({.pool = ctx.pool}, format, matrix(weight, outputs, 512));
        REQUIRE(packed);
        const std::span image(packed->image(), packed->bytes());
        const auto of_rows = pack_rows({.pool = ctx.pool}, format, rows, outputs);
        REQUIRE(of_rows);
        REQUIRE(std::ranges::equal(std::span(of_rows->image(), of_rows->bytes()), image));
        return as_floats(image);
      });
    }
    golden.check();
  }
  Golden golden("image f32");
  for (const Index outputs : {1, 70}) {
    const Floats weight = draw(outputs * 33, 1);
    on_all_paths(golden, [&](const OpContext& ctx) {
      const auto packed = pack_weight(ctx, matrix(weight, outputs, 33));
      REQUIRE(packed);
      return Floats(packed->image(), packed->image() + packed->bytes() / sizeof(float));
    });
  }
  golden.check();
}

TEST_CASE("golden: rotary frequencies of every scaling") {
  Golden golden("rotary frequencies");
  RotaryFrequencies args{.width = 64, .theta = 5e5};
  const auto add = [&] {
    golden.add(rotary_frequencies(args));
    const Floats factor = {rotary_attention_factor(args)};
    golden.add(factor);
  };
  add();
  args.scaling = LinearScaling{.factor = 3.0F};
  add();
  args.scaling = DynamicScaling{.factor = 2.0F, .original_max_position = 2048, .length = 9000};
  add();
  args.scaling = YarnScaling{.factor = 4.0F, .original_max_position = 4096};
  add();
  args.scaling = Llama3Scaling{.factor = 32.0F};
  add();
  golden.check();
}

TEST_CASE("golden: tokens that are drawn, by every setting") {
  Golden golden("sampling");
  Floats logits = draw(1000, 1);
  for (float& logit : logits) logit *= 8.0F;
  Sampler sampler;
  for (const SamplingSettings& settings :
       {SamplingSettings{.temperature = 0.0}, SamplingSettings{.temperature = 0.7, .seed = 3},
        SamplingSettings{.top_k = 40, .seed = 4}, SamplingSettings{.top_p = 0.9, .seed = 5},
        SamplingSettings{.seed = 6, .min_p = 0.05}, SamplingSettings{.seed = 7, .typical_p = 0.8},
        SamplingSettings{.temperature = 1.5,
        .top_k = 100,
        .top_p = 0.8,
        .seed = 8,
        .min_p = 0.01,
        .typical_p = 0.9}}) {
    Floats tokens;
    for (std::uint64_t position = 0; position < 200; ++position) {
      tokens.push_back(static_cast<float>(sampler.sample(logits, settings, position)));
    }
    golden.add(tokens);
    if (settings.temperature > 0.0) continue;
    const auto largest = static_cast<float>(argmax(logits));
    for (const float token : tokens) REQUIRE(token == largest);
  }
  golden.check();
}

TEST_CASE("golden: logits after penalties and biases") {
  Golden golden("penalties");
  std::vector<std::int32_t> seen;
  for (std::int32_t i = 0; i < 300; ++i) seen.push_back(i * i * 7 % 500);
  const TokenBias biases[] = {{0, 2.5F}, {999, -1.0F}, {1000, 3.0F}};
  Sampler sampler;
  for (const Penalties& penalties :
       {Penalties{}, Penalties{.repetition = 1.3F}, Penalties{.frequency = 0.2F},
        Penalties{.presence = 0.7F}, Penalties{.biases = biases},
        Penalties{.repetition = 0.9F, .frequency = -0.1F, .presence = 0.3F, .biases = biases}}) {
    Floats logits = draw(1000, 1);
    sampler.penalise(logits, penalties, seen);
    golden.add(logits);
  }
  golden.check();
}

}  // namespace tutti::kernels::parity

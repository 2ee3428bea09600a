#include "jobs/training/tile_padding.h"

#include <catch2/catch.hpp>

#include "kernels/ops/cpu_path.h"
#include "tests/support/tiny_decoder.h"

namespace tutti::training {
namespace {

models::DecoderDescription gpt2_small() {
  spec::ModelSpec model;
  model.family = "gpt2";
  model.layers = 12;
  model.width = 768;
  model.heads = 12;
  model.vocabulary = 50'257;
  return *models::describe(model, 1024);
}

const TilePadding::Size& size_in(const TilePadding& padding, std::string_view name) {
  for (const auto& size : padding.sizes) {
    if (size.name == name) return size;
  }
  FAIL("no size " << name);
  return padding.sizes.front();
}

}  // namespace

TEST_CASE("tile padding: of a GPT-2 the vocabulary alone is no whole tile, and its rows are odd") {
  models::DecoderDescription d = gpt2_small();
  const TilePadding padding = tile_padding(d, gpu_tiles(2));
  for (const auto& size : padding.sizes) {
    INFO(size.name);
    CHECK(size.is_whole() == (size.name != "vocabulary"));
  }
  const auto& vocabulary = size_in(padding, "vocabulary");
  CHECK(vocabulary.computed == 50'304);
  CHECK_FALSE(vocabulary.aligned);
  // 47 rows of 768 beside 12 layers of 12 widths squared, and the head.
  const double all = 50'304.0 * 768 + 12.0 * 12 * 768 * 768;
  CHECK(padding.share == Approx(47.0 * 768 / all));
  REQUIRE(padding.lines().size() == 2);
  CHECK(padding.lines()[1].find("train.pad_vocabulary=8") != std::string::npos);

  // Rows of zeros align it; what they are computed for is as lost as before.
  d.vocabulary_multiple = 8;
  const TilePadding aligned = tile_padding(d, gpu_tiles(2));
  CHECK(size_in(aligned, "vocabulary").rows == 50'264);
  CHECK(size_in(aligned, "vocabulary").aligned);
  CHECK(aligned.share == padding.share);
  // fp32: four numbers are 16 bytes.
  d.vocabulary_multiple = 4;
  CHECK(size_in(tile_padding(d, gpu_tiles(4)), "vocabulary").aligned);
  CHECK_FALSE(size_in(tile_padding(d, gpu_tiles(2)), "vocabulary").aligned);
}

TEST_CASE("tile padding: a CPU's tiles end at any vector, and leave padded rows out") {
  models::DecoderDescription d = gpt2_small();
  d.vocabulary_multiple = 128;
  const kernels::CpuPath before = kernels::cpu_path();
  for (const auto& [path, computed] : {std::pair{kernels::CpuPath::scalar, 50'257U},
                                       {kernels::CpuPath::avx2, 50'264U},
                                       {kernels::CpuPath::avx512, 50'272U}}) {
    if (!kernels::choose_cpu_path(path)) continue;
    const TilePadding padding = tile_padding(d, cpu_tiles());
    CHECK(padding.tiles.device == to_string(path));
    CHECK(size_in(padding, "vocabulary").computed == computed);
    CHECK(size_in(padding, "vocabulary").rows == 50'257);
    CHECK(size_in(padding, "projections").is_whole());
  }
  REQUIRE(kernels::choose_cpu_path(before));
}

TEST_CASE("tile padding: a gated model's narrow keys count by their layers and matrices") {
  const TilePadding padding = tile_padding(test::tiny_decoder(), gpu_tiles(2));
  CHECK(size_in(padding, "keys and values").size == 32);
  CHECK(size_in(padding, "keys and values").computed == 128);
  CHECK(size_in(padding, "keys and values").share() == Approx(0.75));
  // Of two layers: queries, two of keys and values, the two that write to the width, gate and up.
  const double used = 288.0 * 64 + 2.0 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 64 * 96 + 2 * 96 * 64);
  const double computed = 384.0 * 64 + 2.0 * 128 * (64 + 2 * 64 + 64 + 96 + 2 * 64);
  CHECK(padding.share == Approx(1.0 - used / computed));
}

}  // namespace tutti::training

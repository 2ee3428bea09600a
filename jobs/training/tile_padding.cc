#include "jobs/training/tile_padding.h"

#include <fmt/core.h>

#include "kernels/ops/cpu_path.h"

namespace tutti::training {

namespace {

constexpr std::uint32_t kGpuOutputs = 128;
constexpr std::uint32_t kGpuRowBytes = 16;

std::uint32_t whole(std::uint32_t count, std::uint32_t unit) {
  return (count + unit - 1) / unit * unit;
}

// Lanes of a vector of floats (kernels/cpu/lanes-inl.h).
std::uint32_t lanes(kernels::CpuPath path) {
  switch (path) {
    case kernels::CpuPath::scalar: return 1;
    case kernels::CpuPath::avx2: return 8;
    case kernels::CpuPath::avx512:
    case kernels::CpuPath::avx512bf16: return 16;
  }
  return 1;
}

}  // namespace

ProductTiles cpu_tiles() {
  const kernels::CpuPath path = kernels::cpu_path();
  return {.device = std::string(to_string(path)), .outputs = lanes(path), .row_unit = 1};
}

ProductTiles gpu_tiles(std::uint32_t input_bytes) {
  return {.device = fmt::format("a GPU, inputs of {} bytes", input_bytes),
          .outputs = kGpuOutputs,
          .row_unit = kGpuRowBytes / input_bytes};
}

TilePadding tile_padding(const models::DecoderDescription& d, const ProductTiles& tiles) {
  TilePadding out{.tiles = tiles, .sizes = {}};
  std::uint64_t read = 0;
  std::uint64_t computed = 0;
  // A matrix of `size` outputs, `count` times.
  const auto add = [&](const char* name, std::uint32_t size, std::uint64_t inputs,
                       std::uint64_t count, std::uint32_t rows) {
    const std::uint32_t all = whole(rows, tiles.outputs);
    read += count * size * inputs;
    computed += count * all * inputs;
    for (const TilePadding::Size& known : out.sizes) {
      if (known.name == name) return;
    }
    out.sizes.push_back({name, size, rows, all, rows % tiles.row_unit == 0});
  };
  const auto add_layers = [&](const char* name, std::uint32_t size, std::uint64_t inputs,
                              std::uint64_t matrices) {
    add(name, size, inputs, matrices * d.layers, size);
  };
  // A CPU leaves padded rows out.
  add("vocabulary", d.vocabulary, d.width, 1,
      tiles.row_unit == 1 ? d.vocabulary : d.vocabulary_rows());
  add_layers("width", d.width, d.query_width(), 1);
  add_layers("width", d.width, d.feed_forward, 1);
  if (d.projections == models::Projections::fused) {
    add_layers("projections", d.query_width() + 2 * d.kv_width(), d.width, 1);
  } else {
    add_layers("queries", d.query_width(), d.width, 1);
    add_layers("keys and values", d.kv_width(), d.width, 2);
  }
  add_layers("feed_forward", d.feed_forward, d.width,
             d.inner == models::FeedForward::gated ? 2 : 1);
  out.share = 1.0 - static_cast<double>(read) / static_cast<double>(computed);
  return out;
}

std::vector<std::string> TilePadding::lines() const {
  std::vector<std::string> out = {
      fmt::format("{:.2f} % of the products is padding on {} (tiles of {} outputs)", 100 * share,
                  tiles.device, tiles.outputs)};
  for (const Size& size : sizes) {
    if (size.is_whole()) continue;
    out.push_back(fmt::format("  {:<16}{:>9}  {:>6.2f} %, none at a multiple of {}{}", size.name,
                              size.size, 100 * size.share(), tiles.outputs,
                              size.aligned ? "" : "; its rows do not begin at 16 bytes"));
    if (!size.aligned && size.name == "vocabulary") {
      out.back() += fmt::format(" (in training: train.pad_vocabulary={})", tiles.row_unit);
    }
  }
  return out;
}

}  // namespace tutti::training

// Optimizers over as many weights as GPT-2 124M has, which no cache holds, beside PyTorch where it
// has them; over the demo's, and over a 7B layer's largest.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/ops/adamw.h"
#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/ops/random.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

constexpr Index kGpt2 = 124'439'808;
constexpr Index kDemo = Index{1} << 21;
constexpr Index kLarge = Index{11008} * 4096;

class Optimizers {
 public:
  Optimizers(const Bench& bench, Index size, Index columns = 768)
      : bench_(bench), size_(size), columns_(columns) {}

  // `written` of the `bytes` that each weight takes. No memory is taken for cases that are not
  // wanted.
  void row(const char* name, const std::string& torch_case, double bytes, double written,
           const Run& run) {
    const double count = static_cast<double>(size_);
    const Case c{.name = fmt::format("{} {}", name, size_),
                 .bytes = bytes * count,
                 .written = written * count};
    if (!wanted(bench_, c.name)) return;
    make();
    bench_beside(bench_, c, torch_case.empty() ? "" : fmt::format("{} {}", torch_case, size_), run);
  }

  std::span<float> span(std::size_t i) const { return buffers_[i].span(); }
  std::span<kernels::Hash128> hashes() { return hashes_; }
  std::span<double> sums() { return sums_; }
  Index size() const { return size_; }
  Index columns() const { return columns_; }  // of an optimizer of matrices

 private:
  // Values whose squares are moments, too.
  void make() {
    if (!sums_.empty()) return;
    for (FloatBuffer& buffer : buffers_) {
      buffer = FloatBuffer(size_);
      for (Index i = 0; i < size_; ++i) {
        buffer.data()[i] = static_cast<float>(i * 7919 % 1000) * 1e-3F;
      }
    }
    hashes_.resize(static_cast<std::size_t>(kernels::grid_blocks(size_)));
    sums_.resize(hashes_.size());
  }

  const Bench& bench_;
  Index size_, columns_;
  std::array<FloatBuffer, 5> buffers_;
  std::vector<kernels::Hash128> hashes_;
  std::vector<double> sums_;
};

// Two pieces of a gradient, added with their norm.
class Pieces {
 public:
  explicit Pieces(Index size) {
    for (Index begin = 0; begin < size; begin += kernels::kGridBlock) {
      blocks_.push_back({begin, std::min(kernels::kGridBlock, size - begin)});
    }
  }
  kernels::AddPieces of(Optimizers& o) const {
    pieces_ = {o.span(1).data(), o.span(4).data()};
    return {.pieces = pieces_,
            .additions = {&addition_, 1},
            .count = o.size(),
            .sum = o.span(1).data(),
            .blocks = blocks_,
            .squares = o.sums()};
  }

 private:
  kernels::PieceSum::Addition addition_{0, 1};
  std::vector<kernels::AddPieces::Block> blocks_;
  mutable std::array<float*, 2> pieces_ = {};
};

// The step of several shards: their gradients added, then the update. Bytes are those of both
// passes, each once, without hash and norm.
void bench_adamw_of_shards(const Bench& bench, Optimizers& o, const Run& update,
                           const Run& hashed) {
  const Pieces pieces(o.size());
  o.row("adamw behind added gradients", "", 40, 16, [&] {
    TUTTI_ASSERT(add_into(bench.ctx, o.span(1), o.span(4)));
    update();
  });
  o.row("adamw with hash behind added pieces with their norm", "", 40, 16, [&] {
    TUTTI_ASSERT(add_pieces(bench.ctx, pieces.of(o)));
    hashed();
  });
}

void bench_adamw(const Bench& bench, Optimizers& o) {
  const auto update = [&](std::span<kernels::Hash128> hashes) {
    TUTTI_ASSERT(adamw_update(bench.ctx, {{}, o.span(0), o.span(1), o.span(2), o.span(3), hashes}));
  };
  o.row("adamw", "adamw", 28, 12, [&] { update({}); });
  o.row("adamw with hash", "adamw", 28, 12, [&] { update(o.hashes()); });
  // Bytes of one pass, as the goal counts them.
  o.row("adamw with hash behind the norm", "adamw", 28, 12, [&] {
    TUTTI_ASSERT(square_sums(bench.ctx, o.span(1), o.sums()));
    update(o.hashes());
  });
  bench_adamw_of_shards(
      bench, o, [&] { update({}); }, [&] { update(o.hashes()); });
}

void bench_state8(const Bench& bench, Optimizers& o) {
  const Index blocks = kernels::state8_blocks(o.size());
  std::vector<std::int8_t> first;
  std::vector<std::uint8_t> second;
  const FloatBuffer scales(2 * blocks);
  o.row("adamw8", "", 16, 6, [&] {
    first.resize(static_cast<std::size_t>(o.size()));
    second.resize(first.size());
    TUTTI_ASSERT(adamw8_update(bench.ctx, {{},
                                           o.span(0),
                                           o.span(1),
                                           first,
                                           second,
                                           scales.span().first(static_cast<std::size_t>(blocks)),
                                           scales.span().last(static_cast<std::size_t>(blocks))}));
  });
}

void bench_elementwise(const Bench& bench, Optimizers& o) {
  o.row("sgd", "sgd", 20, 8, [&] {
    TUTTI_ASSERT(sgd_update(bench.ctx, {{}, o.span(0), o.span(1), o.span(2)}));
  });
  o.row("lion", "", 20, 8, [&] {
    TUTTI_ASSERT(lion_update(bench.ctx, {{}, o.span(0), o.span(1), o.span(2)}));
  });
  o.row("schedule-free", "", 28, 12, [&] {
    TUTTI_ASSERT(schedule_free_update(bench.ctx, {{}, o.span(0), o.span(1), o.span(2), o.span(3)}));
  });
  o.row("schedule-free average", "", 12, 4, [&] {
    TUTTI_ASSERT(schedule_free_average(bench.ctx, {0.9, o.span(0), o.span(1), o.span(2)}));
  });
  const Index columns = o.columns();
  const Index rows = o.size() / columns;
  const FloatBuffer states(rows + columns);
  o.row("adafactor", fmt::format("adafactor {}", columns), 20, 4, [&] {
    TUTTI_ASSERT(
        adafactor_update(bench.ctx, {{},
                                     Matrix(o.span(0).data(), rows, columns),
                                     Matrix(o.span(1).data(), rows, columns),
                                     states.span().first(static_cast<std::size_t>(rows)),
                                     states.span().last(static_cast<std::size_t>(columns))}));
  });
  const Pieces pieces(o.size());
  o.row("add pieces", "", 12, 4, [&] { TUTTI_ASSERT(add_pieces(bench.ctx, pieces.of(o))); });
}

// Ops of one operand, which goes through memory part by part.
void bench_spans(const Bench& bench, Index size) {
  const double bytes = 4.0 * static_cast<double>(size);
  Operands operands(size);
  std::vector<double> sums(static_cast<std::size_t>(kernels::grid_blocks(size)));
  const auto row = [&](const char* name, const char* torch, double written, const Run& run) {
    bench_beside(bench,
                 {.name = fmt::format("{} {}", name, size),
                  .bytes = bytes,
                  .written = written * static_cast<double>(size),
                  .sets = sets_beyond_caches(bytes)},
                 fmt::format("{} {}", torch, size), run);
  };
  row("square sums", "norm", 0,
      [&] { TUTTI_ASSERT(square_sums(bench.ctx, operands.in().span(), sums)); });
  row("clear", "zero", 4, [&] { TUTTI_ASSERT(clear(bench.ctx, operands.out().span())); });
  row("fill uniform", "uniform", 4, [&] {
    TUTTI_ASSERT(fill_uniform(
        bench.ctx, {.key = {1, 1}, .low = -1.0, .high = 1.0, .out = operands.out().span()}));
  });
  row("fill normal", "normal", 4, [&] {
    TUTTI_ASSERT(fill_normal(bench.ctx, {.key = {1, 1}, .out = operands.out().span()}));
  });
}

void bench_muon(const Bench& bench, Index rows, Index columns) {
  const std::string name = fmt::format("muon {}x{}", rows, columns);
  if (!wanted(bench, name)) return;
  const FloatBuffer weight = numbers(bench, rows * columns, 1);
  const FloatBuffer gradient = numbers(bench, rows * columns, 2);
  const FloatBuffer velocity = numbers(bench, rows * columns, 3);
  // Five rounds of X X^T, its square, and that times X; the shorter side is the sum's.
  const double less = static_cast<double>(std::min(rows, columns));
  const double more = static_cast<double>(std::max(rows, columns));
  bench_beside(bench,
               {.name = name, .flops = 5.0 * 2.0 * (2.0 * less * less * more + less * less * less)},
               fmt::format("muon {} {}", rows, columns), [&] {
                 TUTTI_ASSERT(muon_update(bench.ctx, {{},
                                                      weight.matrix(rows, columns),
                                                      gradient.matrix(rows, columns),
                                                      velocity.matrix(rows, columns)}));
               });
}

void bench_every(const Bench& bench, Optimizers& o) {
  bench_adamw(bench, o);
  bench_state8(bench, o);
  bench_elementwise(bench, o);
}

}  // namespace

void bench_optimizers(const Bench& bench) {
  {
    Optimizers demo(bench, kDemo);
    bench_every(bench, demo);
  }
  {
    Optimizers gpt2(bench, kGpt2);
    bench_every(bench, gpt2);
  }
  {
    Optimizers large(bench, kLarge, 4096);
    bench_every(bench, large);
  }
  for (const Index size : {kDemo, Index{4096} * 4096}) bench_spans(bench, size);
  bench_muon(bench, 192, 192);
  bench_muon(bench, 512, 192);
  bench_muon(bench, 768, 768);
  bench_muon(bench, 768, 3072);
  bench_muon(bench, 1024, 4096);  // keys of eight heads
  // Two million million operations a step: ten seconds and more of a core.
  if (takes_its_time(bench)) bench_muon(bench, 4096, 4096);
}

}  // namespace tutti::bench

// What misses of goals are made of (kernels/lab/causes.txt): parts of ops beside the whole, with
// the operands where a cache has them and from memory. Only with --causes, and no lines of
// kernels/lab/measured.jsonl.
#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/product/pack_bf16.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/product.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/ops/weights/product_int8.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"
#include "ops/bench/kernels_shapes.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

// The weight gradient by more and more shards: what each addition of the tree costs.
void bench_tree(const Bench& bench, const Shape& s) {
  const FloatBuffer left = numbers(bench, s.m * s.n, 1);
  const FloatBuffer right = numbers(bench, s.m * s.k, 2);
  const FloatBuffer output(s.n * s.k);
  const auto l = left.matrix(s.m, s.n);
  const auto r = right.matrix(s.m, s.k);
  const auto out = output.matrix(s.n, s.k);
  const Run plain = [&] {
    TUTTI_ASSERT(product_tn(bench.ctx, {.left = l, .right = r, .output = out}));
  };
  for (const Index shards : {1, 2, 4, 8}) {
    std::vector<Index> ends;
    for (Index shard = 1; shard <= shards; ++shard) ends.push_back(shard * s.m / shards);
    // The same pieces without the tree: each chain goes on where the one before ended.
    const Run pieces = [&] {
      Index first = 0;
      for (const Index end : ends) {
        TUTTI_ASSERT(product_tn(bench.ctx, {.left = l.row_range(first, end - first),
                                            .right = r.row_range(first, end - first),
                                            .output = out,
                                            .start = first == 0 ? kernels::ChainStart::zero
                                                                : kernels::ChainStart::output}));
        first = end;
      }
    };
    bench_beside(
        bench,
        cause_case(fmt::format("{} tn {} by {} shards", s.name, size_of(s), shards), flops_of(s)),
        [&] {
          TUTTI_ASSERT(
              product_tn_shards(bench.ctx, {.left = l, .right = r, .output = out, .ends = ends}));
        },
        {{"plain", plain}, {"as many calls without the tree", pieces}});
  }
}

// One token of grouped heads, with pages in the second cache, the third, and from memory.
void bench_pages_at(const Bench& bench, Index heads, kernels::CacheType type, const char* name) {
  const kernels::AttentionShape shape{.heads = heads,
                                      .kv_heads = 1,
                                      .head_width = 128,
                                      .scale = 1.0F / std::sqrt(128.0F),
                                      .cache = type};
  for (const Index positions : {256, 1024, 8192, 131072}) {
    const Index page = kv_page_floats(shape);
    const Index count = kernels::kv_pages_for(positions);
    const FloatBuffer memory(count * page);
    std::vector<float*> pages;
    for (Index p = 0; p < count; ++p) pages.push_back(memory.data() + p * page);
    const kernels::SequenceRows all{0, positions, 0, pages};
    {
      const FloatBuffer keys = numbers(bench, positions * 128, 1);
      TUTTI_ASSERT(kv_write(bench.ctx, {shape, keys.matrix(positions, 128),
                                        keys.matrix(positions, 128), std::span(&all, 1)}));
    }
    const FloatBuffer q = numbers(bench, heads * 128, 2);
    const FloatBuffer out(heads * 128);
    const kernels::SequenceRows row{0, 1, positions - 1, pages};
    bench_beside(
        bench,
        cause_case(fmt::format("decode {} pages, {} heads a key head, {} positions: {} KiB", name,
                               heads, positions, memory.span().size_bytes() >> 10),
                   4.0 * static_cast<double>(positions * heads) * 128.0,
                   static_cast<double>(memory.span().size_bytes())),
        "", [&] {
          TUTTI_ASSERT(attention_cached(
              bench.ctx,
              {shape, q.matrix(1, heads * 128), std::span(&row, 1), out.matrix(1, heads * 128)}));
        });
  }
}

// What a product of bf16 operands does beside its tiles.
void bench_pairs(const Bench& bench, const Shape& s) {
  namespace k = kernels;
  if (!k::has_bf16(k::Bf16Arithmetic::native)) return;
  std::vector<k::Bf16> left(static_cast<std::size_t>(s.m * s.k));
  std::vector<k::Bf16> right(static_cast<std::size_t>(s.n * s.k));
  TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, s.m * s.k, 1).span(), left));
  TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, s.n * s.k, 2).span(), right));
  const FloatBuffer output(s.m * s.n);
  const k::Bf16Matrix x(left.data(), s.m, s.k);
  const k::Bf16Matrix w(right.data(), s.n, s.k);
  const k::Workers workers(*bench.ctx.pool);
  const auto image = *k::pack_bf16_weight(bench.ctx, w, k::Bf16Arithmetic::native);
  k::Bf16Product args{.left = x,
                      .right = w,
                      .output = output.matrix(s.m, s.n),
                      .arithmetic = k::Bf16Arithmetic::native};
  const auto part = [&](auto&& make) {
    return [&workers, make] {
      k::ArenaScope scope(workers.op_scratch());
      make();
    };
  };
  k::Bf16Product packed = args;
  packed.packed = &image;
  Case c = cause_case(fmt::format("bf16 native {} {}", s.name, size_of(s)), flops_of(s));
  c.ceiling = bench.bf16_gops;
  bench_beside(
      bench, c, [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, args)); },
      {{"by an image", [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, packed)); }},
       {"pairs of the left",
        part([&] { (void)k::pair_rows(workers, x, k::DepthOrder::inside, (s.k + 1) / 2); })},
       {"pairs of columns of the right",
        part([&] { (void)k::pair_columns(workers, w, k::DepthOrder::inside, (s.k + 1) / 2); })},
       {"the right in fp32", part([&] { (void)k::in_fp32(workers, w); })},
       {"the left in fp32", part([&] { (void)k::in_fp32(workers, x); })}});
}

// More and more rows of codes by one weight of int8, in a cache and from memory.
void bench_codes(const Bench& bench, Index outputs, Index inputs) {
  const auto packed = *quantise_weight(bench.ctx, kernels::WeightFormat::int8_channel,
                                       numbers(bench, outputs * inputs, 1).matrix(outputs, inputs));
  for (const Index rows : {64, 128, 256, 512, 1024}) {
    std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * inputs));
    const FloatBuffer scales(rows);
    const FloatBuffer x = numbers(bench, rows * inputs, 2);
    const kernels::ToInt8Rows round{.x = x.matrix(rows, inputs),
                                    .codes = {codes.data(), rows, inputs},
                                    .scales = scales.matrix(rows, 1)};
    TUTTI_ASSERT(to_int8_rows(bench.ctx, round));
    const FloatBuffer y(rows * outputs);
    const double flops = 2.0 * static_cast<double>(rows * outputs * inputs);
    Case c = cause_case(fmt::format("int8 {}x{}x{}", rows, outputs, inputs), flops);
    c.ceiling = bench.int8_gops;
    bench_beside(bench, c,
                 [&] {
                   TUTTI_ASSERT(product_int8(bench.ctx, {.codes = round.codes,
                                                         .scales = scales.matrix(rows, 1),
                                                         .right = &packed,
                                                         .output = y.matrix(rows, outputs)}));
                 },
                 {{"rounding its rows", [&] { TUTTI_ASSERT(to_int8_rows(bench.ctx, round)); }}});
  }
}

void stay_on(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  (void)sched_setaffinity(0, sizeof(cores), &cores);
}

// What two ranks do to a ring, and nothing else: one core copies 64 MiB into 1 MiB, piece by piece,
// the other from there; each way at once, and each core alone with the same copies.
void bench_rings(Bench bench) {
  bench.options.threads = 2;  // of the clock on the wall
  constexpr std::size_t kAll = std::size_t{64} << 20;
  constexpr std::size_t kRing = std::size_t{1} << 20;
  constexpr std::size_t kPiece = std::size_t{128} << 10;
  std::vector<std::byte> from[2], to[2], ring[2];
  for (int i = 0; i < 2; ++i) {
    from[i].resize(kAll);
    to[i].resize(kAll);
    ring[i].resize(kRing);
    std::memset(from[i].data(), i + 1, kAll);
  }
  const auto copies = [&](int in, int out) {
    for (std::size_t at = 0; at < kAll; at += kPiece) {
      std::memcpy(ring[in].data() + at % kRing, from[in].data() + at, kPiece);
      std::memcpy(to[out].data() + at, ring[out].data() + at % kRing, kPiece);
    }
  };
  const double bytes = static_cast<double>(kAll);
  const auto two = [&](bool crossed) {
    std::atomic<int> ready{0};
    const auto rank = [&](int own) {
      stay_on(own);
      ++ready;
      while (ready < 2) {
      }
      copies(own, crossed ? 1 - own : own);
    };
    std::thread other([&] { rank(1); });
    std::thread one([&] { rank(0); });
    one.join();
    other.join();
  };
  bench_beside(bench, cause_case("rings: one core copies 64 MiB in and out", 0.0, bytes), "",
               [&] { copies(0, 0); });
  bench_beside(bench, cause_case("rings: two cores, each in and out of its own", 0.0, bytes), "",
               [&] { two(false); });
  bench_beside(bench,
               cause_case("rings: two cores, each in its own and out of the other's", 0.0, bytes),
               "", [&] { two(true); });
}

// A line of memory that two cores write in turns: what an exchange of any size waits for at least,
// there and back.
void bench_ping(Bench bench) {
  bench.options.threads = 2;  // of the clock on the wall
  constexpr int kTrips = 10'000;
  struct alignas(64) Word {
    std::atomic<int> value{0};
  };
  Word ping, pong;
  const auto trips = [&] {
    ping.value = 0;
    pong.value = 0;
    std::thread other([&] {
      stay_on(1);
      for (int i = 1; i <= kTrips; ++i) {
        while (ping.value.load(std::memory_order_acquire) != i) {
        }
        pong.value.store(i, std::memory_order_release);
      }
    });
    std::thread one([&] {
      stay_on(0);
      for (int i = 1; i <= kTrips; ++i) {
        ping.value.store(i, std::memory_order_release);
        while (pong.value.load(std::memory_order_acquire) != i) {
        }
      }
    });
    one.join();
    other.join();
  };
  bench_beside(bench,
               cause_case("rings: a line of memory to another core and back, 10,000 times", 0.0),
               "", trips);
}

}  // namespace

void bench_causes(const Bench& bench) {
  for (const Shape& s : {Shape{"gpt2 up", 1024, 3072, 768}, Shape{"gpt2 down", 1024, 768, 3072}}) {
    bench_tree(bench, s);
  }
  for (const Index heads : {1, 4}) {
    bench_pages_at(bench, heads, kernels::CacheType::f32, "f32");
    bench_pages_at(bench, heads, kernels::CacheType::bf16, "bf16");
  }
  for (const Shape& s : {Shape{"gpt2 up", 1024, 3072, 768}, Shape{"gpt2 up", 64, 3072, 768},
                         Shape{"7b", 64, 11008, 4096}}) {
    bench_pairs(bench, s);
  }
  bench_codes(bench, 11008, 4096);
  bench_codes(bench, 3072, 768);
  bench_product_causes(bench);
  bench_place_causes(bench);
  if (std::thread::hardware_concurrency() < 2) return;
  bench_rings(bench);
  bench_ping(bench);
}

}  // namespace tutti::bench

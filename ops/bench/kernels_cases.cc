#include "ops/bench/kernels_cases.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/peers/peer_process.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

// GB/s that memory can give a case at most; 0: its operands may lie in a cache.
double memory_ceiling(const Bench& bench, const Case& c) {
  const double all = c.bytes * static_cast<double>(c.sets);
  if (c.bytes <= 0.0 || all < static_cast<double>(kernels::bytes_beyond_caches()) * 0.85)
    return 0.0;
  const double copied = std::min(2.0 * c.written, c.bytes);
  return c.bytes / (copied / bench.copy_gbps + (c.bytes - copied) / bench.read_gbps);
}

void print(const Bench& bench, const Case& c, const Samples& ours, std::string_view peer,
           const Samples* theirs) {
  Line line{.bench = c.bench, .name = c.name, .ours = &ours, .peer = peer, .theirs = theirs};
  line.rate = c.flops * 1e-9 / ours.median();
  line.gbps = c.bytes * 1e-9 / ours.median();
  if (c.sets > 1) line.operand_bytes = c.bytes * static_cast<double>(c.sets);
  const double memory = memory_ceiling(bench, c);
  const double arithmetic = c.ceiling.value_or(bench.peak_gflops);
  if (memory > 0.0) {
    line.share = line.gbps / memory;
  } else if (c.flops > 0.0 && arithmetic > 0.0) {
    line.share = line.rate / arithmetic;
  }
  print_line(line);
}

}  // namespace

bool wanted(const Bench& bench, const std::string& name) {
  static const std::regex kOnly(bench.options.only);
  return std::regex_search(name, kOnly) && !bench.measured.contains(name);
}

std::set<std::string> measured_in(const std::string& path) {
  constexpr std::string_view kCase = R"("case":")";
  std::ifstream file(path);
  std::set<std::string> names;
  std::string line;
  std::string last;
  while (std::getline(file, line)) {
    const std::size_t begin = line.find(kCase);
    if (begin == std::string::npos || line.find(where_json()) == std::string::npos) continue;
    const std::size_t name = begin + kCase.size();
    last = line.substr(name, line.find('"', name) - name);
    names.insert(last);
  }
  names.erase(last);
  return names;
}

FloatBuffer numbers(const Bench& bench, Index count, std::uint64_t stream) {
  FloatBuffer buffer(count);
  TUTTI_ASSERT(kernels::fill_uniform(
      bench.ctx, {.key = {1, stream}, .low = -1.0, .high = 1.0, .out = buffer.span()}));
  return buffer;
}

Index sets_beyond_caches(double bytes) {
  const double sets = static_cast<double>(kernels::bytes_beyond_caches()) / std::max(bytes, 1.0);
  return static_cast<Index>(std::ceil(std::max(sets, 1.0)));
}

void bench_beside(const Bench& bench, const Case& c, const std::string& torch_case,
                  const Run& run) {
  if (!wanted(bench, c.name)) return;
  const bool beside = !torch_case.empty() && torch_peer(bench.options.threads).available() &&
                      torch_peer(bench.options.threads).prepare(torch_case, c.sets);
  if (!beside) {
    const Samples ours = measure(std::vector<Run>{run}, bench.options.seconds, bench.clock())[0];
    print(bench, c, ours, {}, nullptr);
    return;
  }
  const auto rouse = [&] {
    const double end = now_seconds() + kRouseSeconds;
    bench.ctx.pool->parallel_for(bench.options.threads, 1, [&](int, Index, Index) {
      while (now_seconds() < end) {
      }
    });
  };
  const auto samples = measure_with_peer(run, rouse, torch_peer(bench.options.threads),
                                         bench.options.seconds, bench.clock());
  print(bench, c, samples[0], "pytorch", &samples[1]);
}

void bench_beside(const Bench& bench, const Case& c, const Run& ours,
                  const std::vector<Other>& others) {
  if (!wanted(bench, c.name)) return;
  std::vector<Run> runs = {ours};
  std::vector<std::string_view> names;
  for (const Other& other : others) {
    if (!other.run) continue;
    runs.push_back(other.run);
    names.emplace_back(other.name);
  }
  if (names.empty()) return;
  const auto samples = measure(runs, bench.options.seconds, bench.clock());
  for (std::size_t i = 0; i < names.size(); ++i) {
    print(bench, c, samples[0], names[i], &samples[i + 1]);
  }
}

void bench_ops(const Bench& bench) {
  bench_quantised(bench);
  bench_attention(bench);
  bench_large_rows(bench);
  bench_optimizers(bench);
  bench_losses(bench);
  bench_tokens(bench);
}

}  // namespace tutti::bench

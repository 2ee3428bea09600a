#include "ops/bench/kernels_cases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
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

struct Beside {
  std::string_view peer = {};
  const Samples* theirs = nullptr;
  std::string_view missing = {};
  double stolen = 0.0;
};

void print(const Bench& bench, const Case& c, const Samples& ours, const Beside& beside) {
  Line line{.bench = c.bench,
            .name = c.name,
            .ours = &ours,
            .peer = beside.peer,
            .theirs = beside.theirs,
            .missing = beside.missing,
            .stolen = beside.stolen};
  line.rate = c.flops * 1e-9 / ours.median();
  line.gbps = c.bytes * 1e-9 / ours.median();
  if (c.sets > 1) line.operand_bytes = c.bytes * static_cast<double>(c.sets);
  const double memory = memory_ceiling(bench, c);
  const double arithmetic = c.ceiling.value_or(bench.peak_gflops);
  if (memory > 0.0) {
    line.ceiling = memory;
    line.share = line.gbps / memory;
  } else if (c.flops > 0.0 && arithmetic > 0.0) {
    line.ceiling = arithmetic;
    line.share = line.rate / arithmetic;
  }
  print_line(line);
}

// Whoever runs a benchmark for long sees that it goes on, and how long it will at the pace so far.
void tell_progress(Progress& progress, const std::string& name) {
  constexpr double kTellSeconds = 10.0;
  progress.done.insert(name);
  const double now = now_seconds();
  const std::size_t done = progress.done.size();
  const std::size_t all = std::max(progress.cases.size(), done);
  if (now - progress.told < kTellSeconds && done < all) return;
  progress.told = now;
  const double left =
      (now - progress.begin) * static_cast<double>(all - done) / static_cast<double>(done);
  std::fprintf(stderr, "case %zu of %zu, %.0f s, some %.0f s left: %s\n", done, all,
               now - progress.begin, left, name.c_str());
}

// For all of the seconds, settled or not, and nothing beside it: for who samples what runs.
void profile(const Bench& bench, const Case& c, const Run& run) {
  Samples samples;
  const double end = now_seconds() + bench.options.profile;
  do {
    const double begin = now_seconds(bench.clock());
    run();
    samples.seconds.push_back(now_seconds(bench.clock()) - begin);
  } while (now_seconds() < end);
  samples.finish();
  print(bench, c, samples, {});
}

// While another process runs, our cores may sleep, and one that slept is at a low clock for its
// next millisecond: they are roused before they count, as PyTorch's are (peer_torch.py).
void rouse(const Bench& bench) {
  constexpr double kRouseSeconds = 0.002;
  const double end = now_seconds() + kRouseSeconds;
  bench.ctx.pool->parallel_for(bench.options.threads, 1, [&](int, Index, Index) {
    while (now_seconds() < end) {
    }
  });
}

// Of PyTorch's products in types that a path has no instructions for: seconds of one operation, by
// the case's first two words. What would take too long by them is not asked for.
constexpr double kPeerSecondsMax = 10.0;

class SlowPeers {
 public:
  static std::string words(const std::string& torch_case) {
    return torch_case.substr(0, torch_case.find(' ', torch_case.find(' ') + 1));
  }
  bool too_slow(const std::string& torch_case, double flops) const {
    const auto known = seconds_.find(words(torch_case));
    return known != seconds_.end() && known->second * flops > kPeerSecondsMax;
  }
  void measured(const std::string& torch_case, double flops, double ours, double theirs) {
    if (flops > 0.0 && theirs > kFarBehind * ours) seconds_[words(torch_case)] = theirs / flops;
  }

 private:
  std::map<std::string, double> seconds_;
};

}  // namespace

bool wanted(const Bench& bench, const std::string& name) {
  static const std::regex kOnly(bench.options.only);
  const bool found = std::regex_search(name, kOnly) && !bench.measured.contains(name);
  if (found && bench.progress != nullptr && bench.progress->counting) {
    bench.progress->cases.insert(name);
    return false;
  }
  return found;
}

namespace {

// The string or number behind a key; empty where the line has none.
std::string value_of(const std::string& line, std::string_view key) {
  const std::string start = "\"" + std::string(key) + "\":";
  const std::size_t at = line.find(start);
  if (at == std::string::npos) return {};
  const std::size_t begin = at + start.size();
  return line[begin] == '"' ? line.substr(begin + 1, line.find('"', begin + 1) - begin - 1)
                            : line.substr(begin, line.find_first_of(",}", begin) - begin);
}

}  // namespace

Measured measured_in(const std::string& path) {
  std::ifstream file(path);
  Measured measured;
  std::set<std::string> lacking;
  std::string line;
  std::string last;
  while (std::getline(file, line)) {
    const std::string name = value_of(line, "case");
    if (name.empty() || line.find(place_json()) == std::string::npos) continue;
    const std::string value = value_of(line, "value");
    if (!value.empty()) {
      measured.ceilings[name] = std::strtod(value.c_str(), nullptr);
      continue;
    }
    last = name;
    measured.cases.insert(name);
    const auto number = [&](const char* key) {
      return std::strtod(value_of(line, key).c_str(), nullptr);
    };
    const bool disturbed = number("p50") > kDisturbed * number("min");
    if (disturbed || (value_of(line, "missing") == "pytorch" && has_torch_peer())) {
      lacking.insert(name);
    } else {
      lacking.erase(name);
    }
  }
  measured.cases.erase(last);
  for (const std::string& name : lacking) measured.cases.erase(name);
  return measured;
}

FloatBuffer numbers(const Bench& bench, Index count, std::uint64_t stream) {
  // A million, again and again: to draw a 7B weight takes longer than a product by it.
  constexpr Index kDrawnMax = 1'000'003;
  FloatBuffer buffer(count);
  const Index drawn = std::min(count, kDrawnMax);
  TUTTI_ASSERT(kernels::fill_uniform(
      bench.ctx,
      {.key = {1, stream}, .low = -1.0, .high = 1.0, .out = buffer.span().first(drawn)}));
  for (Index i = drawn; i < count; i += drawn) {
    std::copy_n(buffer.data(), std::min(drawn, count - i), buffer.data() + i);
  }
  return buffer;
}

Index sets_beyond_caches(double bytes) {
  const double sets = static_cast<double>(kernels::bytes_beyond_caches()) / std::max(bytes, 1.0);
  return static_cast<Index>(std::ceil(std::max(sets, 1.0)));
}

void bench_beside(const Bench& bench, const Case& c, const std::string& torch_case, const Run& run,
                  const std::vector<Other>& others) {
  static SlowPeers slow;
  if (!wanted(bench, c.name)) return;
  if (bench.options.profile > 0.0) return profile(bench, c, run);
  PeerProcess& torch = torch_peer(bench.options.threads);
  const bool asked = !torch_case.empty() && !slow.too_slow(torch_case, c.flops);
  const PeerAnswer answer = asked ? torch.prepare(torch_case, c.sets) : PeerAnswer::unknown;
  std::vector<std::function<double()>> times;
  std::vector<std::string_view> names;
  bool torch_ran = false;
  const auto add = [&](std::string_view name, const Run& function) {
    names.push_back(name);
    times.emplace_back([&bench, &function, &torch_ran] {
      if (std::exchange(torch_ran, false)) rouse(bench);
      const double begin = now_seconds(bench.clock());
      function();
      return now_seconds(bench.clock()) - begin;
    });
  };
  add({}, run);
  if (answer == PeerAnswer::ready) {
    names.emplace_back("pytorch");
    times.emplace_back([&torch, &torch_ran] {
      torch_ran = true;
      return torch.run();
    });
  }
  for (const Other& other : others) {
    if (other.run) add(other.name, other.run);
  }
  const StolenTime stolen;
  const auto samples =
      measure_times(times.size(), bench.options.seconds, [&](std::size_t i) { return times[i](); });
  const bool ended = answer == PeerAnswer::ready && !torch.available();
  const std::string_view missing =
      ended || answer == PeerAnswer::none ? std::string_view("pytorch") : std::string_view();
  Beside beside{.missing = missing, .stolen = stolen.share()};
  bool alone = true;
  for (std::size_t i = 1; i < names.size(); ++i) {
    const bool of_torch = answer == PeerAnswer::ready && i == 1;
    if (of_torch && ended) continue;
    if (of_torch) {
      slow.measured(torch_case, c.flops, samples[0].median(), samples[i].median());
    }
    alone = false;
    beside.peer = names[i];
    beside.theirs = &samples[i];
    print(bench, c, samples[0], beside);
  }
  if (alone) print(bench, c, samples[0], beside);
  if (bench.progress != nullptr) tell_progress(*bench.progress, c.name);
}

void bench_beside(const Bench& bench, const Case& c, const Run& ours,
                  const std::vector<Other>& others) {
  if (std::ranges::any_of(others, [](const Other& other) { return bool(other.run); })) {
    bench_beside(bench, c, "", ours, others);
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

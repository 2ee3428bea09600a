// The cases of bench_kernels.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/op_context.h"
#include "ops/bench/samples.h"

namespace tutti::bench {

struct Options {
  int threads = 1;
  double seconds = 0.5;        // per case at most, ours and peers together
  std::string only;            // cases whose name this regular expression finds; empty: all
  std::string into;            // file that lines are added to; empty: standard output
  bool quick = false;          // without what takes long, unless `only` asks for it
  bool causes = false;         // parts of ops in place of ops
  bool without_peers = false;  // as many as there are, none if there is none
  double profile = 0.0;        // seconds of each case, alone and without ceilings; 0: measured
};

// How far a run is. A first walk through all cases, of which it measures none, only counts them.
struct Progress {
  bool counting = false;
  std::set<std::string> cases = {};  // to be measured
  std::set<std::string> done = {};
  double begin = 0.0;  // seconds
  double told = 0.0;
};

struct Bench {
  kernels::OpContext ctx;
  Options options;
  double peak_gflops = 0.0;
  double read_gbps = 0.0;  // of memory beyond the caches, in the better kind of pages
  double copy_gbps = 0.0;  // the same, read and written in equal parts
  double bf16_gops = 0.0;  // of native dot products; 0: none
  double tiles_gops = 0.0;
  double int8_gops = 0.0;
  std::set<std::string> measured = {};  // cases that are left out: a file has them
  Progress* progress = nullptr;

  Clock clock() const { return options.threads == 1 ? Clock::thread : Clock::wall; }
};

bool wanted(const Bench& bench, const std::string& name);

// Whether cases that take long are among those to be measured.
inline bool takes_its_time(const Bench& bench) {
  return !bench.options.quick || !bench.options.only.empty();
}

// What a file has of this machine, path, number of threads and sources. Of cases the last one is
// not among them, as a run that was ended may have left it without some of its peers, nor are those
// that lack a peer which is there now, or whose median was disturbed.
struct Measured {
  std::set<std::string> cases = {};
  std::map<std::string, double> ceilings = {};
};
Measured measured_in(const std::string& path);

// Uniform in [-1, 1), a function of `stream`; after a million they come again.
kernels::FloatBuffer numbers(const Bench& bench, kernels::Index count, std::uint64_t stream);

// How many sets of operands of so many bytes no cache holds together. A case that is to be bound by
// memory takes the next of them at each run.
kernels::Index sets_beyond_caches(double bytes);

// One after the other of `count`, again and again.
class Turns {
 public:
  explicit Turns(kernels::Index count) : count_(count) {}
  std::size_t next() { return static_cast<std::size_t>(turn_++ % count_); }
  kernels::Index count() const { return count_; }

 private:
  kernels::Index count_;
  kernels::Index turn_ = 0;
};

// A case, and what its line says. Its share is of the memory ceiling where bytes are given and the
// operands of all sets are more than the caches hold; else of the arithmetic one, with flops. What
// is written is matched with as much that is read, at the speed of copying; the rest of what is
// read has the speed of reading.
struct Case {
  std::string name;
  double flops = 0.0;
  double bytes = 0.0;                  // that one run touches, each once
  double written = 0.0;                // those of them
  std::optional<double> ceiling = {};  // in GFLOP/s, where it is not that of fp32; 0: none known
  kernels::Index sets = 1;             // of operands of `bytes`, taken in turns
  const char* bench = "kernels/ops";
};

// A part of an op, or an op whose operands lie where its cases do not have them
// (kernels_causes.cc).
inline Case cause_case(const std::string& name, double flops, double bytes = 0.0) {
  return {.name = name, .flops = flops, .bytes = bytes, .bench = "kernels/causes"};
}

using Run = std::function<void()>;

// Another way to compute the same, ours or a library's: a ratio is that one's time over ours. Ways
// without a function are left out.
struct Other {
  std::string name;
  Run run;
};
// Beside PyTorch, where that knows the case (empty: it does not) and is there, and beside others,
// all in turns.
void bench_beside(const Bench& bench, const Case& c, const std::string& torch_case, const Run& run,
                  const std::vector<Other>& others = {});
// Nothing is measured where there is no other.
void bench_beside(const Bench& bench, const Case& c, const Run& ours,
                  const std::vector<Other>& others);

void bench_attention(const Bench& bench);
void bench_causes(const Bench& bench);
void bench_place_causes(const Bench& bench);
void bench_product_causes(const Bench& bench);
void bench_large_rows(const Bench& bench);
void bench_losses(const Bench& bench);
void bench_optimizers(const Bench& bench);
void bench_products(const Bench& bench);
void bench_quantised(const Bench& bench);
void bench_tokens(const Bench& bench);
void bench_ops(const Bench& bench);

}  // namespace tutti::bench

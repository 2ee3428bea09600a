// The CPU's paths: each instruction set that this machine has, with several numbers of threads, and
// the forms that ops choose by the caches.
#include <string>

#include "tests/parity/harness.h"
#include "tests/parity/other_caches.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {

bool continues_chains() { return true; }

bool is_emulated() { return false; }

Floats on_all_paths(const std::function<Floats(const OpContext&)>& op) {
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3), ThreadPool(4),
                               ThreadPool(7)};
  const CpuPath before = cpu_path();
  Floats first;
  bool have_first = false;
  for (const CpuPath path : kCpuPaths) {
    if (!choose_cpu_path(path)) {
      static bool said[kCpuPaths.size()] = {};
      bool& once = said[static_cast<std::size_t>(path)];
      if (!once) test::skip_part("this machine has no " + std::string(to_string(path)));
      once = true;
      continue;
    }
    for (ThreadPool& pool : pools) {
      Floats result = op(OpContext{&pool});
      if (!have_first) {
        first = std::move(result);
        have_first = true;
        continue;
      }
      INFO("path " << to_string(path) << ", threads " << pool.threads());
      REQUIRE(same_bits(result, first));
    }
    const OtherCaches other;
    for (ThreadPool* const pool : {&pools[0], &pools[2]}) {
      INFO("path " << to_string(path) << ", threads " << pool->threads() << ", other caches");
      REQUIRE(same_bits(op(OpContext{pool}), first));
    }
  }
  REQUIRE(choose_cpu_path(before));
  return first;
}

const OpContext& single() {
  static ThreadPool pool(1);
  static const OpContext ctx{&pool};
  return ctx;
}

}  // namespace tutti::kernels::parity

#include "kernels/ops/cpu_path.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "protocol/base/log.h"

namespace tutti::kernels {

namespace {

CpuPath path_at_start() {
  const char* const wish = std::getenv("TUTTI_CPU");
  if (wish == nullptr || *wish == '\0') {
    return cpu_has(CpuPath::avx512) ? CpuPath::avx512 : CpuPath::avx2;
  }
  for (const CpuPath path : {CpuPath::avx2, CpuPath::avx512}) {
    if (to_string(path) == wish && cpu_has(path)) return path;
  }
  TUTTI_LOG_ERROR("kernels", "TUTTI_CPU={}: this machine has no such path (avx2, avx512)", wish);
  std::abort();
}

std::atomic<CpuPath>& path_in_use() {
  static std::atomic<CpuPath> path{path_at_start()};
  return path;
}

}  // namespace

bool cpu_has(CpuPath path) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (path == CpuPath::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd");
}

std::string_view to_string(CpuPath path) { return path == CpuPath::avx512 ? "avx512" : "avx2"; }

CpuPath cpu_path() { return path_in_use().load(std::memory_order_relaxed); }

Result<> choose_cpu_path(CpuPath path) {
  if (!cpu_has(path)) {
    return Error{ErrorCode::unsupported,
                 "this machine has no " + std::string(to_string(path)) + " instructions"};
  }
  path_in_use().store(path, std::memory_order_relaxed);
  return {};
}

}  // namespace tutti::kernels

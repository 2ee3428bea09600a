#include "kernels/ops/cpu_path.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "protocol/base/cpu_features.h"
#include "protocol/base/log.h"

namespace tutti::kernels {

namespace {

CpuPath path_at_start() {
  const char* const wish = std::getenv("TUTTI_CPU");
  const bool any = wish == nullptr || *wish == '\0';
  CpuPath best = CpuPath::scalar;
  for (const CpuPath path : kCpuPaths) {
    if (!cpu_has(path)) continue;
    if (!any && to_string(path) == wish) return path;
    best = path;
  }
  if (any) return best;
  TUTTI_LOG_ERROR("kernels",
                  "TUTTI_CPU={}: this machine has no such path (scalar, avx2, avx512, avx512bf16)",
                  wish);
  std::abort();
}

std::atomic<CpuPath>& path_in_use() {
  static std::atomic<CpuPath> path{path_at_start()};
  return path;
}

}  // namespace

// Everything is built for x86-64-v3, AVX2 and FMA included: without them the program would not have
// come this far.
bool cpu_has(CpuPath path) {
  switch (path) {
    case CpuPath::scalar:
    case CpuPath::avx2: return true;
    case CpuPath::avx512: return has_avx512();
    case CpuPath::avx512bf16: return has_avx512_bf16();
  }
  return false;
}

std::string_view to_string(CpuPath path) {
  switch (path) {
    case CpuPath::scalar: return "scalar";
    case CpuPath::avx2: return "avx2";
    case CpuPath::avx512: return "avx512";
    case CpuPath::avx512bf16: return "avx512bf16";
  }
  return "unknown";
}

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

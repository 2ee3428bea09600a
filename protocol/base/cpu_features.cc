#include "protocol/base/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tutti {

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd");
}

bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vnni");
}

namespace {

// Bits of CPUID 7, EDX; gcc 12 has no names for them.
constexpr unsigned kAmxBf16 = 1U << 22;
constexpr unsigned kAmxTile = 1U << 24;
constexpr unsigned kAmxInt8 = 1U << 25;

bool has_tiles_and(unsigned product) {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const unsigned both = kAmxTile | product;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & both) != both) return false;
  // Linux lets a process have the tiles' eight KiB of state only once it has asked:
  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), for all its threads.
  constexpr long kAsk = 0x1023;
  constexpr long kTileData = 18;
  static const bool given = ::syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
  return given;
}

}  // namespace

bool has_amx_bf16() {
  static const bool has = has_avx512_bf16() && has_tiles_and(kAmxBf16);
  return has;
}

bool has_amx_int8() {
  static const bool has = has_avx512() && has_tiles_and(kAmxInt8);
  return has;
}

}  // namespace tutti

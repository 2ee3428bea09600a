#include "kernels/cpu/caches/caches.h"

#include <unistd.h>

namespace tutti::kernels {

namespace {

void ask(int name, Index& size) {
  const long said = ::sysconf(name);
  if (said > 0) size = said;
}

Caches& in_use() {
  static Caches of_machine = [] {
    Caches found;
    ask(_SC_LEVEL1_DCACHE_ASSOC, found.first_ways);
    ask(_SC_LEVEL2_CACHE_SIZE, found.second_bytes);
    ask(_SC_LEVEL3_CACHE_SIZE, found.third_bytes);
    return found;
  }();
  return of_machine;
}

}  // namespace

const Caches& caches() { return in_use(); }

void choose_caches(const Caches& caches) { in_use() = caches; }

}  // namespace tutti::kernels

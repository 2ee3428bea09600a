// A target under libFuzzer: $TUTTI_FUZZ_TARGET names it (ops/fuzz).
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const tutti::fuzz::Target* const target = [] {
    const char* name = std::getenv("TUTTI_FUZZ_TARGET");
    const auto* found = tutti::fuzz::find_target(name == nullptr ? "" : name);
    if (found == nullptr) {
      std::fputs("fuzz: TUTTI_FUZZ_TARGET names no target:\n", stderr);
      for (const auto& each : tutti::fuzz::targets()) {
        std::fprintf(stderr, "  %.*s\n", static_cast<int>(each.name.size()), each.name.data());
      }
      std::exit(2);
    }
    return found;
  }();
  target->take({reinterpret_cast<const char*>(data), size});
  return 0;
}

#include "tests/support/cuda_emulation/injected_fault.h"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>

namespace tutti::emulation {
namespace {

struct Plan {
  std::string file;
  std::string word;
  std::uint64_t left = 0;  // launches until it happens; 0: never
  std::string how;
};

Plan read_plan() {
  const char* const file = std::getenv("TUTTI_EMULATION_FAULT_AT");
  Plan plan;
  if (file == nullptr) return plan;
  plan.file = file;
  std::ifstream(plan.file) >> plan.word >> plan.left >> plan.how;
  return plan;
}

}  // namespace

std::string injected_fault(const char* kernel) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static Plan plan = read_plan();
  if (plan.left == 0 || std::string(kernel).find(plan.word) == std::string::npos) return {};
  if (--plan.left > 0 || ::unlink(plan.file.c_str()) != 0) return {};
  while (plan.how == "hangs") ::pause();
  return "a test ended the device here";
}

}  // namespace tutti::emulation

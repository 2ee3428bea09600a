// Attention of long samples: more blocks of queries than walk over the keys together, forward and
// backward, and heads as wide as those of large models.
#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

std::vector<Case> long_cases() {
  std::vector<Case> cases = {
      {shape_of(2, 1, 64), {0, 300}},
      {shape_of(4, 1, 128), {0, 150, 330}},
      {shape_of(2, 2, 64), {0, 290}},
  };
  cases.back().shape.window = 100;
  return cases;
}

}  // namespace

TEST_CASE("attention: long samples of wide heads agree with their meaning") {
  Golden golden("attention forward, long");
  Golden log_sums("attention forward, log sums of long ones");
  for (const Case& c : long_cases()) check_forward(golden, log_sums, c);
  golden.check();
  log_sums.check();
}

TEST_CASE("attention: gradients of long samples of wide heads") {
  Golden golden("attention backward, long");
  for (const Case& c : long_cases()) check_backward(golden, c);
  golden.check();
}

}  // namespace tutti::kernels::parity

// The bits of the portable profile: a committed hash of what each fp32 op gives over its case list,
// so that two CPU types agree by test.
//
//   Golden golden("rms norm forward");
//   for (const Case& c : kCases) golden.add(on_all_paths(...));
//   golden.check();
//
// Rows of other profiles (bf16 by native instructions) name theirs and are checked where the CPU
// has it. The hashes are rows of tests/golden/portable.txt. Where bits are meant to change, a
// decision says why, and TUTTI_GOLDEN=write has check() replace the rows of the tests that are run.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/ops/weight_hash.h"

namespace tutti::test {

class Golden {
 public:
  explicit Golden(std::string name) : name_(std::move(name)) {}

  void add(std::span<const float> bits) { add(kernels::hash_block(bits)); }
  void add(const kernels::Hash128& hash) { hashes_.push_back(hash); }

  // Requires (Catch2) that all that was added is what the file says.
  void check() const;

 private:
  std::string name_;
  std::vector<kernels::Hash128> hashes_;
};

}  // namespace tutti::test

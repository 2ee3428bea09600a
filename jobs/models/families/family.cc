#include "jobs/models/families/family.h"

#include <algorithm>
#include <array>

namespace tutti::models {

std::span<const Family> families() {
  static const std::array kFamilies = {kGpt2, kLlama};
  return kFamilies;
}

const Family* find_family(std::string_view name) {
  const auto all = families();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Family& family) { return family.name == name; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace tutti::models

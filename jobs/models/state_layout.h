// Where the parameters' parts of an optimizer's state lie in its arena.
//
// A state of fp32 numbers has the layout of the weights (parameters.h). A packed one, whose numbers
// are narrower, has a whole number of 32-bit words for each parameter, one part after the other in
// name order and without padding; what a part holds is its optimizer's matter. Ranks copy and hash
// either kind as words; a checkpoint names a packed part as bytes.
//
// Threads: immutable. Units: words of 4 bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "jobs/models/parameters.h"

namespace tutti::models {

// Words of a parameter's part; null: fp32 numbers.
using PackedWords = std::uint64_t (*)(std::uint64_t elements);

struct StatePart {
  std::uint64_t offset = 0;  // in the state's arena
  std::uint64_t words = 0;
};

// The part of the parameter that follows those of `before` words.
inline StatePart state_part(const Parameter& parameter, PackedWords packed, std::uint64_t before) {
  if (packed == nullptr) return {parameter.offset, parameter.elements};
  return {before, packed(parameter.elements)};
}

struct StateLayout {
  StateLayout(const ParameterLayout& layout, PackedWords packed) {
    for (const Parameter& parameter : layout.parameters()) {
      parts.push_back(state_part(parameter, packed, words));
      words += parts.back().words;
    }
    if (packed == nullptr) words = layout.elements();
  }

  std::vector<StatePart> parts;  // in the order of the parameters
  std::uint64_t words = 0;       // of the arena
};

}  // namespace tutti::models

// Strong ids: a job cannot be passed where a generation is meant.
//
// Zero is "none" for every id. Ids order and print as their number.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace tutti {

template <class Tag>
struct Id {
  std::uint64_t value = 0;

  auto operator<=>(const Id&) const = default;
  explicit operator bool() const { return value != 0; }
};

using JobId = Id<struct JobTag>;  // counted by the coordinator from 1
using Generation =
    Id<struct GenerationTag>;  // (re)start of one job's group, counted per job from 1
using ProcessId =
    Id<struct ProcessTag>;  // one start of one rank process, counted by the coordinator from 1
using SessionId =
    Id<struct SessionTag>;  // one Hello/Welcome of one worker, counted by the coordinator from 1
using Sequence = Id<struct SequenceTag>;  // number of an order or report within a session, from 1

template <class Tag>
std::string to_string(Id<Tag> id) {
  return std::to_string(id.value);
}

}  // namespace tutti

template <class Tag>
struct std::hash<tutti::Id<Tag>> {
  std::size_t operator()(tutti::Id<Tag> id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value);
  }
};

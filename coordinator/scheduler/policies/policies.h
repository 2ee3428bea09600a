// On which nodes a gang goes: one file and one row each.
//
// A policy takes up to `wanted` ranks from one tier (nodes of equal preference) and appends who
// takes how many, in the order of ranks. To add one: a file beside these, a row in policies.cc, and
// its name in the spec's key table.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "coordinator/scheduler/capacity.h"

namespace tutti::coordinator::scheduler {

using Choose = void (*)(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out);

// Whether a gang that fits on one node, where devices are joined, is kept together there whatever
// the policy would say; spreading is what its user has asked for.
enum class Links { followed, ignored };

struct Policy {
  std::string_view name;
  Choose choose = nullptr;
  Links links = Links::followed;
};

std::span<const Policy> policies();

// The row of that name; the first one if there is none (a journal of a newer version).
const Policy& policy_of(std::string_view name);

// By name: the same nodes again and again, the last ones stay empty.
void choose_first_fit(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out);
// The fewest nodes, and of those that can take the rest, the fullest: room for large gangs stays.
void choose_packed(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out);
// As many nodes as there are, the emptiest first, one rank at a time.
void choose_spread(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out);

}  // namespace tutti::coordinator::scheduler

// What a set of runs has met: which fault struck jobs in which state, and which paths were taken.
//
// An empty cell that could be met is a finding; so is a path of kMustReach that no run took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/cluster/cluster_records.h"
#include "protocol/base/clock.h"

namespace tutti::simulation {

struct Coverage {
  std::uint64_t runs = 0;
  std::uint64_t events = 0;
  Duration simulated{0};
  std::map<std::string, std::uint64_t> faults;                          // injected
  std::map<std::pair<std::string, std::string>, std::uint64_t> states;  // (fault, state) -> jobs
  std::map<std::string, std::uint64_t> reached;                         // path -> times
  std::map<std::string, std::uint64_t> reached_by;                      // path -> runs

  void add(const Coverage& other);
};

// A state of jobs by its name, as the table has it; null: there is none.
const std::string_view* find_state(std::string_view name);
// The states that a job is in: its own, and resizing or leaving besides.
std::vector<std::string_view> states_of(const coordinator::JobRecord& job);

// Cells that chance must have met and did not: "fault x state".
std::vector<std::string> empty_cells(const Coverage& coverage);
// Paths that must be met by a set that CI runs, and were not.
std::vector<std::string> unreached(const Coverage& coverage);
// The table, for people.
std::string table(const Coverage& coverage);
// Every path that must be met, the rarest first: runs that met it, and how often they did. With
// fewer than some ten runs, another commit's chance may well have none.
std::string rarest_paths(const Coverage& coverage, std::size_t most);

}  // namespace tutti::simulation

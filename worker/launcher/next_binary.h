// Asks the binary that is to take this process's place whether it would.
//
// An exec has no way back: what then fails over its configuration ends, and its ranks with it. So
// the file is run beside us first, with --check: it reads its configuration and says what it is.
//
//   {"version": "0.4.0", "state": "/var/lib/tutti/worker", "handovers": [1]}
//
// Threads: the main thread's, which stands still meanwhile, kAnswersWithin at most.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::worker {

// Less than a lease: heartbeats wait for it.
inline constexpr Duration kAnswersWithin = std::chrono::seconds(3);

struct Takeover {
  std::filesystem::path state;  // folder, canonical
  std::uint32_t handover = 0;   // version of what is handed over
};

// What a binary that takes this over says of itself.
std::string check_line(const Takeover& ours);

// Whether who answered so takes it over. Errors: corrupt (no such line), unsupported (no such
// handover), invalid_argument (it would be on another folder).
Result<> accepts(std::string_view answer, const Takeover& ours);

// Errors: those of answer_of() and accepts(); invalid_argument: it ended badly, in its own words.
Result<> ask_next_binary(std::vector<std::string> command, const Takeover& ours);

}  // namespace tutti::worker

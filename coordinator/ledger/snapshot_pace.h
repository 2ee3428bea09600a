// When a snapshot of the ledger is written: after so many facts, and after a failure not before a
// rest.
//
// A snapshot of a full history takes long enough to be felt, and one that fails (a disk that takes
// a fact, but not that much) would be tried again after each decision.
//
// Threads: one. Units: the caller's clock.
#pragma once

#include <algorithm>
#include <cstdint>

#include "coordinator/ledger/ledger.h"
#include "protocol/base/clock.h"

namespace tutti::coordinator {

class SnapshotPace {
 public:
  static constexpr Duration kRestMin = std::chrono::seconds(10);
  static constexpr Duration kRestMax = std::chrono::minutes(5);

  bool is_due(std::uint64_t facts, Instant now) const {
    return facts >= kFactsPerSnapshot && now >= not_before_;
  }
  void wrote() { rest_ = Duration::zero(); }
  // Each failure in a row doubles the rest.
  void failed(Instant now) {
    rest_ = std::clamp(2 * rest_, kRestMin, kRestMax);
    not_before_ = now + rest_;
  }

 private:
  Duration rest_{};
  Instant not_before_{};
};

}  // namespace tutti::coordinator

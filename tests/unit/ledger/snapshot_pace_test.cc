#include "coordinator/ledger/snapshot_pace.h"

#include <catch2/catch.hpp>

namespace tutti::coordinator {
namespace {

TEST_CASE("snapshots: one that failed is not tried again at once, and less and less often") {
  SnapshotPace pace;
  Instant now{};
  CHECK_FALSE(pace.is_due(kFactsPerSnapshot - 1, now));
  CHECK(pace.is_due(kFactsPerSnapshot, now));
  pace.failed(now);
  CHECK_FALSE(pace.is_due(kFactsPerSnapshot + 1, now));
  now = now + SnapshotPace::kRestMin;
  CHECK(pace.is_due(kFactsPerSnapshot + 1, now));
  pace.failed(now);
  CHECK_FALSE(pace.is_due(kFactsPerSnapshot + 1, now + SnapshotPace::kRestMin));
  for (int i = 0; i < 20; ++i) pace.failed(now);
  CHECK(pace.is_due(kFactsPerSnapshot + 1, now + SnapshotPace::kRestMax));
  now = now + SnapshotPace::kRestMax;
  pace.wrote();
  pace.failed(now);
  CHECK(pace.is_due(kFactsPerSnapshot, now + SnapshotPace::kRestMin));
}

}  // namespace
}  // namespace tutti::coordinator

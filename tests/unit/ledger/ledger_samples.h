// Facts and events for the ledger's tests, and how a ledger is opened there.
#pragma once

#include <catch2/catch.hpp>

#include <memory>
#include <string>
#include <vector>

#include "coordinator/ledger/ledger.h"
#include "tests/support/temporary_folder.h"

namespace tutti::coordinator::test {

inline Fact submitted(std::uint64_t job, const std::string& key = "",
                      const std::string& spec = "spec") {
  JobSubmitted fact;
  fact.job = JobId{job};
  fact.key = key;
  fact.owner = "ann";
  fact.spec = spec;
  fact.unix_ms = 1'700'000'000'000;
  return fact;
}

inline Event event_of(std::uint64_t seq, std::uint64_t job = 1) {
  Event event;
  event.seq = seq;
  event.unix_ms = static_cast<std::int64_t>(seq) * 1000;
  event.job = JobId{job};
  event.message = "event " + std::to_string(seq);
  return event;
}

inline std::unique_ptr<Ledger> open_ledger(const std::filesystem::path& folder) {
  auto ledger = Ledger::open({.folder = folder});
  if (!ledger) FAIL(ledger.error().message);
  return *std::move(ledger);
}

inline std::vector<Fact> facts_of(const std::filesystem::path& folder) {
  auto past = open_ledger(folder)->recover();
  if (!past) FAIL(past.error().message);
  return past->facts;
}

}  // namespace tutti::coordinator::test

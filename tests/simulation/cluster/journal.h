// The coordinator's disk as bytes: an append-only journal of batches through the real fact codec,
// and a snapshot that replaces it.
//
// What is appended lies in the machine's cache until sync; a crash keeps a prefix of it of any
// length, so a batch can be torn. As with SQLite's write-ahead log a batch counts whole or not at
// all: the first one whose length or hash does not fit ends the journal.
//
// Events ride in the batches and are kept all, for the auditor (I15).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"
#include "tests/simulation/world/world.h"

namespace tutti::simulation {

struct JournalPast {
  coordinator::Snapshot snapshot;
  std::vector<coordinator::Fact> facts;
  std::uint64_t last_event = 0;
};

class Journal {
 public:
  explicit Journal(World& world) : world_(world) {}

  void append(const std::vector<coordinator::Fact>& facts,
              const std::vector<coordinator::Event>& events);
  void sync();
  // Power is lost; of what was not synced a part stays.
  void crash();
  // What a starting coordinator finds.
  JournalPast recover();
  // Replaces all facts so far, whole or not at all.
  void write_snapshot(const coordinator::Snapshot& snapshot);

  std::size_t facts_since_snapshot() const { return facts_; }
  // What is durable, as values that never were bytes: what recover() has to give.
  const JournalPast& truth() const { return truth_; }
  // Numbers of the events that were synced, in order.
  const std::vector<std::uint64_t>& events() const { return events_; }

 private:
  void keep();

  World& world_;
  std::string snapshot_;
  std::string durable_;
  std::string cached_;
  std::vector<std::uint64_t> events_;
  std::vector<std::uint64_t> cached_events_;
  std::vector<coordinator::Fact> cached_facts_;
  std::size_t facts_ = 0;
  JournalPast truth_;
};

// A snapshot as bytes: what byte-equal means (I11).
std::string encode_snapshot(const coordinator::Snapshot& snapshot);

}  // namespace tutti::simulation

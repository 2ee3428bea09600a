#include "tests/simulation/cluster/journal.h"

#include <cstring>
#include <utility>
#include <variant>

#include "coordinator/ledger/fact_codec.h"
#include "protocol/base/assert.h"
#include "protocol/wire/codec.h"

namespace tutti::simulation {

namespace {

// What a record of a batch is; a fact's number otherwise.
constexpr std::uint16_t kEventRecord = 0;

std::uint64_t hash_of(std::string_view bytes) {
  std::uint64_t hash = 14'695'981'039'346'656'037ULL;
  for (const char each : bytes) {
    hash = (hash ^ static_cast<unsigned char>(each)) * 1'099'511'628'211ULL;
  }
  return hash;
}

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

template <class T>
bool get(std::string_view& in, T& value) {
  if (in.size() < sizeof(T)) return false;
  std::memcpy(&value, in.data(), sizeof(T));
  in.remove_prefix(sizeof(T));
  return true;
}

// The next whole batch of `in`, or nothing.
bool next_batch(std::string_view& in, std::string_view& batch) {
  std::string_view rest = in;
  std::uint64_t length = 0;
  std::uint64_t hash = 0;
  if (!get(rest, length) || !get(rest, hash) || rest.size() < length) return false;
  batch = rest.substr(0, length);
  if (hash_of(batch) != hash) return false;
  in = rest.substr(length);
  return true;
}

void read_batch(std::string_view batch, JournalPast& past) {
  while (!batch.empty()) {
    std::uint16_t kind = 0;
    std::uint32_t length = 0;
    const bool whole = get(batch, kind) && get(batch, length) && batch.size() >= length;
    TUTTI_ASSERT(whole);
    const std::string_view body = batch.substr(0, length);
    batch.remove_prefix(length);
    if (kind == kEventRecord) {
      const Result<coordinator::Event> event = coordinator::decode_event(body);
      TUTTI_ASSERT(event.ok());
      past.last_event = event->seq;
      continue;
    }
    Result<coordinator::Fact> fact = coordinator::decode_fact(kind, body);
    TUTTI_ASSERT(fact.ok());
    past.facts.push_back(*std::move(fact));
  }
}

void put_record(std::string& out, std::uint16_t kind, std::string_view body) {
  put(out, kind);
  put(out, static_cast<std::uint32_t>(body.size()));
  out.append(body);
}

}  // namespace

std::string encode_snapshot(const coordinator::Snapshot& snapshot) {
  return wire::encode_body(snapshot);
}

void Journal::append(const std::vector<coordinator::Fact>& facts,
                     const std::vector<coordinator::Event>& events) {
  std::string batch;
  for (const coordinator::Fact& fact : facts) {
    coordinator::Fact kept = fact;
    auto* submitted = std::get_if<coordinator::JobSubmitted>(&kept);
    if (submitted != nullptr && world_.breaks(Mutation::lose_key)) submitted->key.clear();
    const coordinator::EncodedFact encoded = coordinator::encode_fact(kept);
    put_record(batch, encoded.kind, encoded.body);
  }
  for (const coordinator::Event& event : events) {
    if (world_.breaks(Mutation::lose_events) && event.seq % 7 == 0) continue;
    put_record(batch, kEventRecord, coordinator::encode_event(event));
    cached_events_.push_back(event.seq);
  }
  if (batch.empty()) return;
  put(cached_, static_cast<std::uint64_t>(batch.size()));
  put(cached_, hash_of(batch));
  cached_ += batch;
  cached_facts_.insert(cached_facts_.end(), facts.begin(), facts.end());
}

// All that is cached is durable.
void Journal::keep() {
  durable_ += std::exchange(cached_, {});
  events_.insert(events_.end(), cached_events_.begin(), cached_events_.end());
  cached_events_.clear();
  facts_ += cached_facts_.size();
  truth_.facts.insert(truth_.facts.end(), cached_facts_.begin(), cached_facts_.end());
  cached_facts_.clear();
}

void Journal::sync() { keep(); }

void Journal::crash() {
  if (cached_.empty()) return;
  if (world_.rng().chance(0.3)) {
    world_.reached("a batch was durable before the crash and never spoken of");
    return keep();
  }
  const std::size_t kept = world_.rng().below(cached_.size());
  durable_ += cached_.substr(0, kept);
  if (kept > 0) {
    world_.reached("a batch was torn by a crash");
    // A sector that was being written can hold anything.
    durable_.back() = static_cast<char>(durable_.back() ^ 0x55);
  }
  cached_.clear();
  cached_events_.clear();
  cached_facts_.clear();
}

JournalPast Journal::recover() {
  JournalPast past;
  std::uint64_t last_event = 0;
  std::string_view saved = snapshot_;
  if (get(saved, last_event)) {
    Result<coordinator::Snapshot> snapshot = wire::decode_body<coordinator::Snapshot>(saved);
    TUTTI_ASSERT(snapshot.ok());
    past.snapshot = *std::move(snapshot);
    past.last_event = last_event;
  }
  if (world_.breaks(Mutation::forget_journal)) return past;
  std::string_view in = durable_;
  std::string_view batch;
  while (next_batch(in, batch)) read_batch(batch, past);
  // What follows a torn batch would never be read.
  durable_.resize(durable_.size() - in.size());
  facts_ = past.facts.size();
  if (world_.breaks(Mutation::replay_twice)) {
    for (const coordinator::Fact& fact : std::vector(past.facts)) {
      if (std::holds_alternative<coordinator::WorkerLost>(fact)) past.facts.push_back(fact);
    }
  }
  if (world_.breaks(Mutation::revive_ended)) {
    std::erase_if(past.facts, [](const coordinator::Fact& fact) {
      return std::holds_alternative<coordinator::JobSettled>(fact);
    });
  }
  return past;
}

void Journal::write_snapshot(const coordinator::Snapshot& snapshot) {
  snapshot_.clear();
  put(snapshot_, events_.empty() ? std::uint64_t{0} : events_.back());
  snapshot_ += encode_snapshot(snapshot);
  durable_.clear();
  facts_ = 0;
  truth_.snapshot = snapshot;
  truth_.facts.clear();
  world_.reached("a snapshot replaced the journal");
}

}  // namespace tutti::simulation

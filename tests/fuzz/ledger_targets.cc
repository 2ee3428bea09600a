// What the journal holds: facts, events, records. The first two bytes are the kind.
#include "coordinator/ledger/fact_codec.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

std::uint16_t kind_of(std::string_view bytes) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[0]) |
                                    static_cast<unsigned char>(bytes[1]) << 8);
}

std::string with_kind(std::uint16_t kind, const std::string& body) {
  return std::string{static_cast<char>(kind & 0xff), static_cast<char>(kind >> 8)} + body;
}

template <class Record>
std::string encode(const Record& record) {
  return coordinator::encode_record(record);
}
template <>
std::string encode(const coordinator::AccessRecord& record) {
  return coordinator::encode_access(record);
}
template <>
std::string encode(const coordinator::AuditRecord& record) {
  return coordinator::encode_audit(record);
}

template <class Record>
void check(const Result<Record>& record, Result<Record> (*decode)(std::string_view)) {
  if (!record) return;
  const std::string again = encode(*record);
  const Result<Record> twice = decode(again);
  require(twice.ok() && *twice == *record, "a record changes on its way");
}

}  // namespace

void take_fact(std::string_view bytes) {
  if (bytes.size() < 2) return;
  const auto fact = coordinator::decode_fact(kind_of(bytes), bytes.substr(2));
  if (fact) {
    const coordinator::EncodedFact again = coordinator::encode_fact(*fact);
    const auto twice = coordinator::decode_fact(again.kind, again.body);
    require(twice.ok() && *twice == *fact, "a fact changes on its way");
  }
  const auto event = coordinator::decode_event(bytes.substr(2));
  if (!event) return;
  const auto twice = coordinator::decode_event(coordinator::encode_event(*event));
  require(twice.ok() && *twice == *event, "an event changes on its way");
}

void take_record(std::string_view bytes) {
  check(coordinator::decode_job(bytes), coordinator::decode_job);
  check(coordinator::decode_process(bytes), coordinator::decode_process);
  check(coordinator::decode_worker(bytes), coordinator::decode_worker);
  check(coordinator::decode_key(bytes), coordinator::decode_key);
  check(coordinator::decode_usage(bytes), coordinator::decode_usage);
}

void take_access(std::string_view bytes) {
  check(coordinator::decode_access(bytes), coordinator::decode_access);
  check(coordinator::decode_audit(bytes), coordinator::decode_audit);
}

std::vector<std::string> fact_seeds() {
  std::vector<std::string> out;
  const auto add = [&](const coordinator::Fact& fact) {
    const coordinator::EncodedFact encoded = coordinator::encode_fact(fact);
    out.push_back(with_kind(encoded.kind, encoded.body));
  };
  coordinator::JobSubmitted submitted;
  submitted.job = JobId{1};
  submitted.spec = "kind: train";
  submitted.terms.labels = {"zone=a"};
  add(submitted);
  coordinator::GenerationStarted started;
  started.gang.resize(2);
  add(started);
  coordinator::GroupOrdered ordered;
  ordered.formation.addresses = {"a", "b"};
  ordered.formation.copies = {{.from = 0, .to = 1}};
  add(ordered);
  coordinator::CheckpointPartTaken part;
  part.part.files = {{.name = "part", .bytes = 9, .hash = "00"}};
  add(part);
  coordinator::WorkerJoined joined;
  joined.worker.profiles = {"portable"};
  add(joined);
  out.push_back(with_kind(0, coordinator::encode_event({.seq = 4, .message = "placed"})));
  return out;
}

std::vector<std::string> record_seeds() {
  coordinator::JobRecord job;
  job.job = JobId{3};
  job.members.resize(2);
  job.checkpoints.resize(2);
  job.recoveries.resize(1);
  coordinator::ProcessRecord process;
  process.worker = "node-1";
  coordinator::WorkerRecord worker;
  worker.profiles = {"portable"};
  const coordinator::KeyRecord key{.key = "k", .job = JobId{3}, .spec_hash = 7, .unix_ms = 1};
  coordinator::UsageRecord usage;
  usage.owner = "ann";
  return {coordinator::encode_record(job), coordinator::encode_record(process),
          coordinator::encode_record(worker), coordinator::encode_record(key),
          coordinator::encode_record(usage)};
}

std::vector<std::string> access_seeds() {
  coordinator::AccessRecord token;
  token.id = 4;
  token.user = "ann";
  token.hash = "00ff";
  coordinator::AuditRecord audit;
  audit.seq = 9;
  return {coordinator::encode_access(token), coordinator::encode_audit(audit)};
}

}  // namespace tutti::fuzz

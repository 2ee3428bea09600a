// What the journal holds: facts, events, records. The first two bytes are the kind.
#include <algorithm>
#include <iterator>
#include <type_traits>
#include <variant>

#include "coordinator/ledger/fact_codec.h"
#include "tests/fuzz/targets.h"
#include "tests/support/sample.h"

namespace tutti::fuzz {

namespace {

std::uint16_t kind_of(std::string_view bytes) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[0]) |
                                    static_cast<unsigned char>(bytes[1]) << 8);
}

std::string with_kind(std::uint16_t kind, const std::string& body) {
  return std::string{static_cast<char>(kind & 0xff), static_cast<char>(kind >> 8)} + body;
}

std::string half(const std::string& bytes) { return bytes.substr(0, bytes.size() / 2); }

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

// What is compared is what is written: a NaN is not equal to itself.
template <class Record>
bool check(const Result<Record>& record, Result<Record> (*decode)(std::string_view)) {
  if (!record) return false;
  const std::string again = encode(*record);
  const Result<Record> twice = decode(again);
  require(twice.ok() && encode(*twice) == again, "a record changes on its way");
  return true;
}

}  // namespace

bool take_fact(std::string_view bytes) {
  if (bytes.size() < 2) return false;
  const auto fact = coordinator::decode_fact(kind_of(bytes), bytes.substr(2));
  if (fact) {
    const coordinator::EncodedFact again = coordinator::encode_fact(*fact);
    const auto twice = coordinator::decode_fact(again.kind, again.body);
    require(twice.ok() && coordinator::encode_fact(*twice) == again, "a fact changes on its way");
  }
  const auto event = coordinator::decode_event(bytes.substr(2));
  if (!event) return fact.ok();
  const auto twice = coordinator::decode_event(coordinator::encode_event(*event));
  require(twice.ok() && *twice == *event, "an event changes on its way");
  return true;
}

bool take_record(std::string_view bytes) {
  const bool taken[] = {check(coordinator::decode_job(bytes), coordinator::decode_job),
                        check(coordinator::decode_process(bytes), coordinator::decode_process),
                        check(coordinator::decode_worker(bytes), coordinator::decode_worker),
                        check(coordinator::decode_key(bytes), coordinator::decode_key),
                        check(coordinator::decode_usage(bytes), coordinator::decode_usage)};
  return std::find(std::begin(taken), std::end(taken), true) != std::end(taken);
}

bool take_access(std::string_view bytes) {
  const bool access = check(coordinator::decode_access(bytes), coordinator::decode_access);
  return check(coordinator::decode_audit(bytes), coordinator::decode_audit) || access;
}

// Every fact with every field set, an event, and one that is torn.
std::vector<std::string> fact_seeds() {
  std::vector<std::string> out;
  const auto add = [&](const coordinator::Fact& fact) {
    const coordinator::EncodedFact encoded = coordinator::encode_fact(fact);
    out.push_back(with_kind(encoded.kind, encoded.body));
  };
  [&]<class... Facts>(std::type_identity<std::variant<Facts...>>) {
    (add(sample::filled<Facts>()), ...);
  }(std::type_identity<coordinator::Fact>{});
  out.push_back(with_kind(0, coordinator::encode_event(sample::filled<coordinator::Event>())));
  out.push_back(half(out.back()));
  return out;
}

std::vector<std::string> record_seeds() {
  using coordinator::encode_record;
  return {encode_record(sample::filled<coordinator::JobRecord>()),
          encode_record(sample::filled<coordinator::ProcessRecord>()),
          encode_record(sample::filled<coordinator::WorkerRecord>()),
          encode_record(sample::filled<coordinator::KeyRecord>()),
          encode_record(sample::filled<coordinator::UsageRecord>()),
          half(encode_record(sample::filled<coordinator::JobRecord>()))};
}

std::vector<std::string> access_seeds() {
  return {coordinator::encode_access(sample::filled<coordinator::AccessRecord>()),
          coordinator::encode_audit(sample::filled<coordinator::AuditRecord>()),
          half(coordinator::encode_audit(sample::filled<coordinator::AuditRecord>()))};
}

}  // namespace tutti::fuzz

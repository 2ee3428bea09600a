// Facts, events and records <-> bytes of the ledger: the wire's codec, with a number for each kind
// of fact.
//
// Instantiated in one .cc, because the codec is costly to compile.
// Errors: corrupt (bytes that do not decode), unsupported (a kind that this version does not know).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "coordinator/access/access_records.h"
#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

struct EncodedFact {
  std::uint16_t kind = 0;
  std::string body;

  bool operator==(const EncodedFact&) const = default;
};

EncodedFact encode_fact(const Fact& fact);
Result<Fact> decode_fact(std::uint16_t kind, std::string_view body);

std::string encode_event(const Event& event);
Result<Event> decode_event(std::string_view body);

std::string encode_audit(const AuditRecord& record);
Result<AuditRecord> decode_audit(std::string_view body);
std::string encode_access(const AccessRecord& record);
Result<AccessRecord> decode_access(std::string_view body);

std::string encode_record(const JobRecord& record);
std::string encode_record(const ProcessRecord& record);
std::string encode_record(const WorkerRecord& record);
std::string encode_record(const KeyRecord& record);
std::string encode_record(const UsageRecord& record);
Result<JobRecord> decode_job(std::string_view body);
Result<ProcessRecord> decode_process(std::string_view body);
Result<WorkerRecord> decode_worker(std::string_view body);
Result<KeyRecord> decode_key(std::string_view body);
Result<UsageRecord> decode_usage(std::string_view body);

}  // namespace tutti::coordinator

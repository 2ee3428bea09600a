#include "coordinator/ledger/fact_codec.h"

#include <fmt/core.h>

#include <type_traits>
#include <utility>
#include <variant>

#include "protocol/wire/codec.h"

namespace tutti::coordinator {

namespace {

template <class T, std::uint16_t Number>
struct Row {};

// One row a fact. A number that was ever used stays with its fact.
template <class... Rows>
struct Table {};
using Facts = Table<Row<WorkerJoined, 1>,          //
                    Row<WorkerLost, 2>,            //
                    Row<WorkerForgotten, 3>,       //
                    Row<JobSubmitted, 4>,          //
                    Row<JobWithdrawn, 5>,          //
                    Row<GenerationStarted, 6>,     //
                    Row<ProcessStarted, 7>,        //
                    Row<GroupOrdered, 8>,          //
                    Row<GroupRunning, 9>,          //
                    Row<FirstStepSeen, 10>,        //
                    Row<GenerationAborted, 11>,    //
                    Row<ProcessStopOrdered, 12>,   //
                    Row<ProcessEnded, 13>,         //
                    Row<JobStopping, 14>,          //
                    Row<JobSettled, 15>,           //
                    Row<JobForgotten, 16>,         //
                    Row<CheckpointPartTaken, 17>,  //
                    Row<CheckpointTaken, 18>,      //
                    Row<CheckpointDropped, 19>,    //
                    Row<FailureCounted, 20>,       //
                    Row<NodeDraining, 21>,         //
                    Row<NodeUndrained, 22>,        //
                    Row<NodeBlamed, 23>,           //
                    Row<JobReleasing, 24>,         //
                    Row<ReleaseEnded, 25>,         //
                    Row<TaskStarted, 31>,          //
                    Row<TaskCancelled, 32>,        //
                    Row<DependencyMet, 33>,        //
                    Row<ProcessReturned, 34>,      //
                    Row<CommitOrdered, 35>,        //
                    Row<StartRefused, 36>,         //
                    Row<RefusalsForgotten, 37>,    //
                    Row<NumbersPassed, 38>>;

template <class T, class Other, std::uint16_t Number>
consteval std::uint16_t number_if_same(Row<Other, Number>) {
  return std::is_same_v<T, Other> ? Number : std::uint16_t{0};
}

template <class T, class... Rows>
consteval std::uint16_t find_number(Table<Rows...>) {
  return static_cast<std::uint16_t>((0 + ... + number_if_same<T>(Rows{})));
}

template <class T>
consteval std::uint16_t number_of() {
  constexpr std::uint16_t number = find_number<T>(Facts{});
  static_assert(number != 0, "the fact has no row");
  return number;
}

template <class T, std::uint16_t Number>
bool decode_row(Row<T, Number>, std::uint16_t kind, std::string_view body, Result<Fact>& out) {
  if (kind != Number) return false;
  Result<T> fact = wire::decode_body<T>(body);
  if (fact) {
    out = Fact(*std::move(fact));
  } else {
    out = std::move(fact).error().with_context(fmt::format("fact of kind {}", kind));
  }
  return true;
}

template <class... Rows>
bool decode_any(Table<Rows...>, std::uint16_t kind, std::string_view body, Result<Fact>& out) {
  return (decode_row(Rows{}, kind, body, out) || ...);
}

}  // namespace

EncodedFact encode_fact(const Fact& fact) {
  return std::visit(
      []<class T>(const T& each) {
        return EncodedFact{.kind = number_of<T>(), .body = wire::encode_body(each)};
      },
      fact);
}

Result<Fact> decode_fact(std::uint16_t kind, std::string_view body) {
  Result<Fact> out =
      Error{ErrorCode::unsupported,
            fmt::format("a fact of kind {}, which this version does not know", kind)};
  decode_any(Facts{}, kind, body, out);
  return out;
}

std::string encode_event(const Event& event) { return wire::encode_body(event); }
Result<Event> decode_event(std::string_view body) { return wire::decode_body<Event>(body); }

std::string encode_audit(const AuditRecord& record) { return wire::encode_body(record); }
Result<AuditRecord> decode_audit(std::string_view body) {
  return wire::decode_body<AuditRecord>(body);
}
std::string encode_access(const AccessRecord& record) { return wire::encode_body(record); }
Result<AccessRecord> decode_access(std::string_view body) {
  return wire::decode_body<AccessRecord>(body);
}

std::string encode_record(const JobRecord& record) { return wire::encode_body(record); }
std::string encode_record(const ProcessRecord& record) { return wire::encode_body(record); }
std::string encode_record(const WorkerRecord& record) { return wire::encode_body(record); }
std::string encode_record(const KeyRecord& record) { return wire::encode_body(record); }
std::string encode_record(const UsageRecord& record) { return wire::encode_body(record); }
Result<JobRecord> decode_job(std::string_view body) { return wire::decode_body<JobRecord>(body); }
Result<ProcessRecord> decode_process(std::string_view body) {
  return wire::decode_body<ProcessRecord>(body);
}
Result<WorkerRecord> decode_worker(std::string_view body) {
  return wire::decode_body<WorkerRecord>(body);
}
Result<KeyRecord> decode_key(std::string_view body) { return wire::decode_body<KeyRecord>(body); }
Result<UsageRecord> decode_usage(std::string_view body) {
  return wire::decode_body<UsageRecord>(body);
}

}  // namespace tutti::coordinator

// Bodies of the HTTP API's requests that change something.
//
// What is taken must be what its limits allow, belong to the caller and the path, and, where it is
// a spec, read back equal.
#include "coordinator/api/bodies/change_bodies.h"
#include "coordinator/api/bodies/request_body.h"
#include "protocol/spec/parse.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

constexpr std::size_t kMessageBytesMax = 8'192;
constexpr std::int64_t kNowUnixMs = 1'700'000'000'000;

api::Call call_of(std::string_view bytes) {
  api::Call out;
  out.user = "ann";
  out.job = JobId{7};
  out.name = "node-1";
  out.body = bytes;
  return out;
}

// A spec may also be of a later version.
bool refused(const Error& error) {
  require(error.code == ErrorCode::invalid_argument || error.code == ErrorCode::unsupported,
          "a body is refused as something else");
  require(!error.message.empty(), "a refusal without a message");
  require(error.message.size() <= kMessageBytesMax, "a refusal without a bound");
  for (const char c : error.message) {
    require(static_cast<unsigned char>(c) >= 0x20, "a refusal of several lines");
  }
  return false;
}

}  // namespace

bool take_submit_body(std::string_view bytes) {
  const auto submit = api::parse_submit(call_of(bytes));
  if (!submit) return refused(submit.error());
  require(submit->owner == "ann", "a body names its owner");
  require(submit->key.size() <= api::kKeyBytesMax, "a key without a bound");
  const auto again = spec::parse_job_spec(submit->yaml);
  require(again.ok(), "an accepted spec is not read back");
  require(*again == submit->spec, "an accepted spec is read back as another");
  return true;
}

bool take_cancel_body(std::string_view bytes) {
  const auto cancel = api::parse_cancel(call_of(bytes));
  if (!cancel) return refused(cancel.error());
  require(cancel->job == JobId{7}, "a body names another job");
  require(cancel->reason.size() <= api::kReasonBytesMax, "a reason without a bound");
  return true;
}

bool take_fault_body(std::string_view bytes) {
  const auto fault = api::parse_fault(call_of(bytes));
  if (!fault) return refused(fault.error());
  const bool of_worker = fault->action >= coordinator::FaultAction::kill_worker;
  require(of_worker || fault->worker.empty(), "a rank's fault names a worker");
  require(!of_worker || !fault->job, "a worker's fault names a job");
  require(fault->lasts_ms <= api::kFaultMsMax && fault->delay_ms <= api::kFaultMsMax,
          "a fault without an end");
  return true;
}

bool take_drain_body(std::string_view bytes) {
  const auto drain = api::parse_drain(call_of(bytes));
  if (!drain) return refused(drain.error());
  require(drain->node == "node-1", "a body names another node");
  require(!drain->reason.empty() && drain->reason.size() <= api::kReasonBytesMax,
          "a drain without a reason");
  require(drain->deadline_ms <= api::kDrainMsMax, "a drain without an end");
  return true;
}

bool take_token_body(std::string_view bytes) {
  const auto wish = api::parse_token(call_of(bytes), kNowUnixMs);
  if (!wish) return refused(wish.error());
  require(wish->made_by == "ann", "a body names who made it");
  require(wish->kind != coordinator::AccessKind::worker, "a body makes a worker's key");
  require(wish->role != coordinator::Role::anyone, "a token for anyone");
  require(wish->expires_unix_ms == 0 || wish->expires_unix_ms > kNowUnixMs,
          "a token that has expired");
  return true;
}

bool take_rotation_body(std::string_view bytes) {
  const auto overlap = api::parse_rotation(call_of(bytes));
  if (!overlap) return refused(overlap.error());
  require(*overlap <= api::kOverlapSecondsMax, "old keys without an end");
  return true;
}

std::vector<std::string> submit_body_seeds() {
  return {R"({"spec":"name: p\nkind: run\ncommand: [sleep, \"9\"]\n","file":"p.yaml","key":"k"})",
          R"({"spec":"name: p\nkind: run\ncommand: [a]\n","set":["priority=3","limit.time=1h"]})",
          R"({"spec":"name: p\nkind: run\ncomand: [a]\n","set":null,"key":null})",
          R"({"spec":"","set":{}})"};
}

std::vector<std::string> cancel_body_seeds() {
  return {R"({"reason":"wrong data","save":true})", R"({"reason":null,"save":null})", "",
          R"({"save":"yes"})"};
}

std::vector<std::string> fault_body_seeds() {
  return {R"({"action":"kill-rank","job":7,"rank":1})",
          R"({"action":"continue-rank","job":18446744073709551615,"rank":4294967295})",
          R"({"action":"cut","worker":"node-1","lasts_ms":2000})",
          R"({"action":"slow-disk","worker":"node-1","lasts_ms":3600000,"delay_ms":200})",
          R"({"action":"heal","worker":"node-1"})",
          R"({"action":"kill-worker","worker":null})",
          R"({"action":"melt-worker","worker":"node-1"})"};
}

std::vector<std::string> drain_body_seeds() {
  return {R"({"reason":"new memory","deadline_ms":600000})", R"({"reason":"x"})",
          R"({"reason":"","deadline_ms":null})"};
}

std::vector<std::string> token_body_seeds() {
  return {R"({"user":"bob","role":"viewer","kind":"api","expires_s":2592000})",
          R"({"user":"rack-7","kind":"join"})", R"({"user":"eve","role":"anyone"})"};
}

std::vector<std::string> rotation_body_seeds() {
  return {R"({"overlap_s":3600})", R"({"overlap_s":null})", R"({"overlap_s":-1})"};
}

}  // namespace tutti::fuzz

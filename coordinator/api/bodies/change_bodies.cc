#include "coordinator/api/bodies/change_bodies.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <limits>
#include <utility>

#include "coordinator/api/bodies/request_body.h"
#include "protocol/spec/parse.h"

namespace tutti::api {

namespace json = boost::json;

namespace {

// Missing or null: none.
Result<std::vector<std::string>> overrides_of(const json::object& body) {
  std::vector<std::string> out;
  const json::value* sets = body.if_contains("set");
  if (sets == nullptr || sets->is_null()) return out;
  if (!sets->is_array()) return wrong("set is not an array of strings");
  if (sets->as_array().size() > kOverridesMax) {
    return wrong("set has more than " + std::to_string(kOverridesMax) + " entries");
  }
  for (const json::value& set : sets->as_array()) {
    if (!set.is_string()) return wrong("set is not an array of strings");
    out.emplace_back(set.as_string());
  }
  return out;
}

// Errors of a spec name its file and its overrides as they were sent, which may be anything.
Error on_one_line(Error error) {
  constexpr std::size_t kShownMax = 4'096;
  if (error.message.size() > kShownMax) {
    std::size_t cut = kShownMax;
    while (cut > 0 && (static_cast<unsigned char>(error.message[cut]) & 0xc0U) == 0x80U) --cut;
    error.message = error.message.substr(0, cut) + "...";
  }
  for (char& c : error.message) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return error;
}

Result<coordinator::InjectFault> parse_worker_fault(const json::object& body,
                                                    const std::string& action) {
  coordinator::InjectFault input;
  const Result<std::string> worker = text_of(body, "worker", kReasonBytesMax);
  if (!worker) return worker.error();
  input.worker = *worker;
  for (const auto& [name, into] :
       {std::pair{"lasts_ms", &input.lasts_ms}, std::pair{"delay_ms", &input.delay_ms}}) {
    if (!body.contains(name)) continue;
    const Result<std::uint64_t> value = number_of(body, name, kFaultMsMax);
    if (!value) return value.error();
    *into = *value;
  }
  using enum coordinator::FaultAction;
  for (const auto& [name, value] : {std::pair{"kill-worker", kill_worker}, std::pair{"cut", cut},
                                    std::pair{"heal", heal}, std::pair{"slow-disk", slow_disk}}) {
    if (action != name) continue;
    input.action = value;
    return input;
  }
  return wrong("action on a worker is one of kill-worker, cut, heal, slow-disk");
}

}  // namespace

Result<coordinator::SubmitJob> parse_submit(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  const Result<std::string> yaml = text_of(*body, "spec", spec::kSpecBytesMax);
  if (!yaml) return yaml.error();
  if (yaml->empty()) return wrong("the body has no spec");
  spec::ParseOptions options;
  const Result<std::string> file = text_of(*body, "file", kReasonBytesMax);
  if (!file) return file.error();
  if (!file->empty()) options.file = *file;
  Result<std::vector<std::string>> overrides = overrides_of(*body);
  if (!overrides) return overrides.error();
  options.overrides = *std::move(overrides);
  const Result<std::string> key = text_of(*body, "key", kKeyBytesMax);
  if (!key) return key.error();
  const Result<spec::JobSpec> parsed = spec::parse_job_spec(*yaml, options);
  if (!parsed) return on_one_line(parsed.error());
  return coordinator::SubmitJob{{}, *key, call.user, spec::to_yaml(*parsed), *parsed};
}

Result<coordinator::CancelJob> parse_cancel(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  const Result<std::string> reason = text_of(*body, "reason", kReasonBytesMax);
  if (!reason) return reason.error();
  const Result<bool> save = flag_of(*body, "save");
  if (!save) return save.error();
  return coordinator::CancelJob{{}, call.job, *reason, *save};
}

Result<coordinator::InjectFault> parse_fault(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  const Result<std::string> action = text_of(*body, "action", kReasonBytesMax);
  if (!action) return action.error();
  if (body->contains("worker")) return parse_worker_fault(*body, *action);
  const Result<std::uint64_t> job =
      number_of(*body, "job", std::numeric_limits<std::uint64_t>::max());
  if (!job) return job.error();
  const Result<std::uint64_t> rank =
      number_of(*body, "rank", std::numeric_limits<std::uint32_t>::max());
  if (!rank) return rank.error();
  coordinator::InjectFault input;
  input.job = JobId{*job};
  input.rank = static_cast<std::uint32_t>(*rank);
  using enum coordinator::FaultAction;
  for (const auto& [name, value] :
       {std::pair{"kill-rank", kill_rank}, std::pair{"stop-rank", stop_rank},
        std::pair{"continue-rank", continue_rank}}) {
    if (*action != name) continue;
    input.action = value;
    return input;
  }
  return wrong("action is one of kill-rank, stop-rank, continue-rank");
}

Result<coordinator::DrainNode> parse_drain(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  const Result<std::string> reason = text_of(*body, "reason", kReasonBytesMax);
  if (!reason) return reason.error();
  if (reason->empty()) return wrong("a drain needs a reason");
  const Result<std::uint64_t> deadline_ms = number_or(*body, "deadline_ms", 0, kDrainMsMax);
  if (!deadline_ms) return deadline_ms.error();
  return coordinator::DrainNode{{}, call.name, *reason, *deadline_ms};
}

Result<coordinator::TokenWish> parse_token(const Call& call, std::int64_t now_unix_ms) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  coordinator::TokenWish wish;
  wish.made_by = call.user;
  const Result<std::string> kind = text_of(*body, "kind", kReasonBytesMax);
  if (!kind) return kind.error();
  if (!kind->empty() && *kind != "api" && *kind != "join") return wrong("kind is api or join");
  if (*kind == "join") wish.kind = coordinator::AccessKind::join;
  const Result<std::string> user = text_of(*body, "user", kReasonBytesMax);
  if (!user) return user.error();
  wish.user = *user;
  const Result<std::string> role = text_of(*body, "role", kReasonBytesMax);
  if (!role) return role.error();
  const auto named = coordinator::role_named(role->empty() ? "user" : *role);
  if (!named) return wrong("role is one of viewer, user, admin");
  wish.role = *named;
  const Result<std::uint64_t> seconds = number_or(*body, "expires_s", 0, kExpirySecondsMax);
  if (!seconds) return seconds.error();
  if (*seconds > 0) wish.expires_unix_ms = now_unix_ms + static_cast<std::int64_t>(*seconds) * 1000;
  return wish;
}

Result<std::uint64_t> parse_rotation(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  return number_or(*body, "overlap_s", kOverlapSeconds, kOverlapSecondsMax);
}

}  // namespace tutti::api

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/json_views.h"
#include "protocol/spec/parse.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::size_t kKeyBytesMax = 256;
constexpr std::size_t kReasonBytesMax = 1024;

Error wrong(std::string message) { return {ErrorCode::invalid_argument, std::move(message)}; }

// The body as an object; an empty body is an empty object.
Result<json::object> parse_body(const Call& call) {
  if (call.body.empty()) return json::object();
  boost::system::error_code failure;
  json::value value = json::parse(call.body, failure);
  if (failure) return wrong("the body is not JSON: " + failure.message());
  if (!value.is_object()) return wrong("the body is not a JSON object");
  return std::move(value.as_object());
}

Result<std::string> text_of(const json::object& body, std::string_view name,
                            std::size_t bytes_max) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string()) return wrong(std::string(name) + " is not a string");
  if (value->as_string().size() > bytes_max) return wrong(std::string(name) + " is too long");
  return std::string(value->as_string());
}

Result<std::uint64_t> number_of(const json::object& body, std::string_view name,
                                std::uint64_t max) {
  const json::value* value = body.if_contains(name);
  boost::system::error_code failure;
  const std::uint64_t number = value == nullptr ? 0 : value->to_number<std::uint64_t>(failure);
  if (value == nullptr || failure || number > max)
    return wrong(std::string(name) + " is not a number in range");
  return number;
}

Result<coordinator::SubmitJob> parse_submit(const Call& call) {
  const Result<json::object> body = parse_body(call);
  if (!body) return body.error();
  const Result<std::string> yaml = text_of(*body, "spec", spec::kSpecBytesMax);
  if (!yaml) return yaml.error();
  if (yaml->empty()) return wrong("the body has no spec");
  spec::ParseOptions options;
  if (Result<std::string> file = text_of(*body, "file", kReasonBytesMax); !file)
    return file.error();
  else if (!file->empty())
    options.file = *file;
  if (const json::value* sets = body->if_contains("set"); sets != nullptr && !sets->is_null()) {
    if (!sets->is_array()) return wrong("set is not an array of strings");
    for (const json::value& set : sets->as_array()) {
      if (!set.is_string()) return wrong("set is not an array of strings");
      options.overrides.emplace_back(set.as_string());
    }
  }
  const Result<std::string> key = text_of(*body, "key", kKeyBytesMax);
  if (!key) return key.error();
  const Result<spec::JobSpec> parsed = spec::parse_job_spec(*yaml, options);
  if (!parsed) return parsed.error();
  return coordinator::SubmitJob{{}, *key, call.user, spec::to_yaml(*parsed), *parsed};
}

Answer answer_of(const coordinator::AnswerBody& body) {
  if (const auto* error = std::get_if<Error>(&body)) return error_answer(*error);
  if (const auto* job = std::get_if<coordinator::JobAccepted>(&body)) {
    return json_answer(
        json::serialize(json::value{{"id", job->job.value}, {"existing", job->existing}}));
  }
  return json_answer("{}");
}

class JobRoutes {
 public:
  explicit JobRoutes(const ClusterParts& parts) : parts_(parts) {}

  asio::awaitable<Answer> submit(const Call& call) const {
    Result<coordinator::SubmitJob> input = parse_submit(call);
    if (!input) co_return error_answer(input.error());
    auto begin = [cluster = &parts_.cluster, submit = *std::move(input)](auto reply) mutable {
      cluster->submit(std::move(submit), reply);
    };
    const auto done = co_await ask_later<coordinator::AnswerBody>(host(), std::move(begin));
    co_return answer_of(done);
  }

  asio::awaitable<Answer> cancel(const Call& call) const {
    const Result<json::object> body = parse_body(call);
    if (!body) co_return error_answer(body.error());
    const Result<std::string> reason = text_of(*body, "reason", kReasonBytesMax);
    if (!reason) co_return error_answer(reason.error());
    coordinator::CancelJob input;
    input.job = call.job;
    input.reason = *reason;
    auto begin = [cluster = &parts_.cluster, input](auto reply) { cluster->cancel(input, reply); };
    const auto done = co_await ask_later<coordinator::AnswerBody>(host(), std::move(begin));
    if (std::holds_alternative<Error>(done)) co_return answer_of(done);
    co_return co_await job(call);
  }

  asio::awaitable<Answer> inject(const Call& call) const {
    const Result<coordinator::InjectFault> input = parse_fault(call);
    if (!input) co_return error_answer(input.error());
    auto begin = [cluster = &parts_.cluster, fault = *input](auto reply) {
      cluster->inject(fault, reply);
    };
    const auto done = co_await ask_later<coordinator::AnswerBody>(host(), std::move(begin));
    co_return answer_of(done);
  }

  asio::awaitable<Answer> jobs(const Call&) const {
    using Jobs = Result<std::vector<coordinator::JobSummary>>;
    const Jobs found = co_await ask<Jobs>(
        host(), [cluster = &parts_.cluster] { return Jobs(cluster->settled_state().jobs()); });
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& summary : *found) out.push_back(json_of(summary));
    co_return json_answer(json::serialize(json::value{{"jobs", std::move(out)}}));
  }

  asio::awaitable<Answer> job(const Call& call) const {
    using Job = Result<std::optional<coordinator::JobDetail>>;
    const Job found = co_await ask<Job>(host(), [cluster = &parts_.cluster, id = call.job] {
      return Job(cluster->settled_state().job(id));
    });
    if (!found) co_return error_answer(found.error());
    if (!*found)
      co_return error_answer({ErrorCode::not_found, "there is no job " + to_string(call.job)});
    co_return json_answer(json::serialize(json_of(**found)));
  }

  asio::awaitable<Answer> nodes(const Call&) const {
    using Nodes = Result<std::vector<coordinator::NodeView>>;
    const Nodes found = co_await ask<Nodes>(
        host(), [cluster = &parts_.cluster] { return Nodes(cluster->settled_state().nodes()); });
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& node : *found) out.push_back(json_of(node));
    co_return json_answer(json::serialize(json::value{{"nodes", std::move(out)}}));
  }

 private:
  actor::ActorHost& host() const { return parts_.cluster.host(); }

  static Result<coordinator::InjectFault> parse_fault(const Call& call) {
    const Result<json::object> body = parse_body(call);
    if (!body) return body.error();
    const Result<std::string> action = text_of(*body, "action", kReasonBytesMax);
    if (!action) return action.error();
    const Result<std::uint64_t> job = number_of(*body, "job", ~std::uint64_t{0});
    if (!job) return job.error();
    const Result<std::uint64_t> rank = number_of(*body, "rank", ~std::uint32_t{0});
    if (!rank) return rank.error();
    coordinator::InjectFault input;
    input.job = JobId{*job};
    input.rank = static_cast<std::uint32_t>(*rank);
    if (*action == "kill-rank") {
      input.action = coordinator::FaultAction::kill_rank;
    } else if (*action == "stop-rank") {
      input.action = coordinator::FaultAction::stop_rank;
    } else if (*action == "continue-rank") {
      input.action = coordinator::FaultAction::continue_rank;
    } else {
      return wrong("action is one of kill-rank, stop-rank, continue-rank");
    }
    return input;
  }

  ClusterParts parts_;
};

}  // namespace

std::vector<Route> job_routes(const ClusterParts& parts) {
  const auto routes = std::make_shared<const JobRoutes>(parts);
  return {
      {"POST", "/api/v1/jobs", Role::user,
       [routes](const Call& call) { return routes->submit(call); }},
      {"GET", "/api/v1/jobs", Role::viewer,
       [routes](const Call& call) { return routes->jobs(call); }},
      {"GET", "/api/v1/jobs/ID", Role::viewer,
       [routes](const Call& call) { return routes->job(call); }},
      {"POST", "/api/v1/jobs/ID/cancel", Role::user,
       [routes](const Call& call) { return routes->cancel(call); }},
      {"GET", "/api/v1/nodes", Role::viewer,
       [routes](const Call& call) { return routes->nodes(call); }},
      {"POST", "/api/v1/faults", Role::admin,
       [routes](const Call& call) { return routes->inject(call); }},
  };
}

}  // namespace tutti::api

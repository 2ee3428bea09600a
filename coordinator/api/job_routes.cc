#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/job_query.h"
#include "coordinator/api/json_views.h"
#include "coordinator/api/request_body.h"
#include "protocol/spec/parse.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr std::size_t kKeyBytesMax = 256;

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

class JobRoutes {
 public:
  explicit JobRoutes(const ClusterParts& parts) : parts_(parts) {}

  asio::awaitable<Answer> submit(const Call& call) const {
    Result<coordinator::SubmitJob> input = parse_submit(call);
    if (!input) co_return error_answer(input.error());
    const std::string name = input->spec.name;
    co_return answer_of(
        co_await change(parts_, *std::move(input), call.caller("submit", "", name)));
  }

  asio::awaitable<Answer> cancel(const Call& call) const {
    const Result<json::object> body = parse_body(call);
    if (!body) co_return error_answer(body.error());
    const Result<std::string> reason = text_of(*body, "reason", kReasonBytesMax);
    if (!reason) co_return error_answer(reason.error());
    const Result<bool> save = flag_of(*body, "save");
    if (!save) co_return error_answer(save.error());
    coordinator::CancelJob input;
    input.job = call.job;
    input.reason = *reason;
    input.save = *save;
    if (const Result<> allowed = co_await may_change(call); !allowed)
      co_return error_answer(allowed.error());
    const auto done = co_await change(parts_, input,
                                      call.caller("cancel", "job " + to_string(call.job), *reason));
    if (std::holds_alternative<Error>(done)) co_return answer_of(done);
    co_return co_await job(call);
  }

  asio::awaitable<Answer> inject(const Call& call) const {
    const Result<coordinator::InjectFault> input = parse_fault(call);
    if (!input) co_return error_answer(input.error());
    const std::string target =
        input->worker.empty() ? "job " + to_string(input->job) : "node " + input->worker;
    co_return answer_of(co_await change(parts_, *input, call.caller("fault", target, call.body)));
  }

  asio::awaitable<Answer> jobs(const Call& call) const {
    const Result<coordinator::JobFilter> filter = parse_job_query(call);
    if (!filter) co_return error_answer(filter.error());
    using Jobs = Result<coordinator::JobPage>;
    auto question = [cluster = &parts_.cluster, wanted = *filter] {
      return Jobs(cluster->settled_state().jobs(wanted));
    };
    const Jobs found = co_await ask<Jobs>(host(), question);
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& summary : found->jobs) out.push_back(json_of(summary));
    const JobId last = found->jobs.empty() ? filter->after : found->jobs.back().job;
    co_return json_answer(json::serialize(
        json::value{{"jobs", std::move(out)}, {"next", last.value}, {"end", !found->more}}));
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

  asio::awaitable<Answer> explain(const Call& call) const {
    using Explained = Result<std::optional<coordinator::Explanation>>;
    const Explained found =
        co_await ask<Explained>(host(), [cluster = &parts_.cluster, id = call.job] {
          return Explained(cluster->settled_state().explain(id));
        });
    if (!found) co_return error_answer(found.error());
    if (!*found)
      co_return error_answer({ErrorCode::not_found, "there is no job " + to_string(call.job)});
    co_return json_answer(json::serialize(json_of(**found)));
  }

  asio::awaitable<Answer> plan(const Call& call) const {
    using Planned = Result<coordinator::Explanation>;
    const Result<coordinator::SubmitJob> input = parse_submit(call);
    if (!input) co_return error_answer(input.error());
    auto question = [cluster = &parts_.cluster, input = *input] {
      return cluster->settled_state().plan(input.owner, input.spec);
    };
    const Planned planned = co_await ask<Planned>(host(), question);
    if (!planned) co_return error_answer(planned.error());
    co_return json_answer(json::serialize(json_of(*planned)));
  }

  asio::awaitable<Answer> tasks(const Call& call) const {
    using Tasks = Result<std::vector<coordinator::TaskView>>;
    const Tasks found = co_await ask<Tasks>(host(), [cluster = &parts_.cluster, id = call.job] {
      return Tasks(cluster->settled_state().tasks(id));
    });
    if (!found) co_return error_answer(found.error());
    json::array out;
    for (const auto& task : *found) out.push_back(json_of(task));
    co_return json_answer(json::serialize(json::value{{"tasks", std::move(out)}}));
  }

 private:
  actor::ActorHost& host() const { return parts_.cluster.host(); }

  // Users change their own jobs, admins all. What is not there is answered by the cluster.
  asio::awaitable<Result<>> may_change(const Call& call) const {
    if (call.role >= Role::admin) co_return Result<>{};
    using Owner = Result<std::string>;
    const Owner owner = co_await ask<Owner>(host(), [cluster = &parts_.cluster, id = call.job] {
      return Owner(cluster->settled_state().owner_of(id));
    });
    if (!owner) co_return owner.error();
    if (owner->empty() || *owner == call.user) co_return Result<>{};
    co_return Error{ErrorCode::permission_denied, "job " + to_string(call.job) + " belongs to " +
                                                      *owner + ", not to " + call.user +
                                                      "; an admin may change it"};
  }

  static Result<coordinator::InjectFault> parse_worker_fault(const json::object& body,
                                                             const std::string& action) {
    constexpr std::uint64_t kLastsMsMax = 3'600'000;
    coordinator::InjectFault input;
    const Result<std::string> worker = text_of(body, "worker", kReasonBytesMax);
    if (!worker) return worker.error();
    input.worker = *worker;
    for (const auto& [name, into] :
         {std::pair{"lasts_ms", &input.lasts_ms}, std::pair{"delay_ms", &input.delay_ms}}) {
      if (!body.contains(name)) continue;
      const Result<std::uint64_t> value = number_of(body, name, kLastsMsMax);
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

  static Result<coordinator::InjectFault> parse_fault(const Call& call) {
    const Result<json::object> body = parse_body(call);
    if (!body) return body.error();
    const Result<std::string> action = text_of(*body, "action", kReasonBytesMax);
    if (!action) return action.error();
    if (body->contains("worker")) return parse_worker_fault(*body, *action);
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
      {"GET", "/api/v1/jobs/ID/explain", Role::viewer,
       [routes](const Call& call) { return routes->explain(call); }},
      {"POST", "/api/v1/plan", Role::user,
       [routes](const Call& call) { return routes->plan(call); }},
      {"GET", "/api/v1/jobs/ID/tasks", Role::viewer,
       [routes](const Call& call) { return routes->tasks(call); }},
      {"POST", "/api/v1/jobs/ID/cancel", Role::user,
       [routes](const Call& call) { return routes->cancel(call); }},
      {"POST", "/api/v1/faults", Role::admin,
       [routes](const Call& call) { return routes->inject(call); }},
  };
}

}  // namespace tutti::api

#include <boost/json/serialize.hpp>

#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/bodies/change_bodies.h"
#include "coordinator/api/changes.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/job_query.h"
#include "coordinator/api/json_views.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

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
    const Result<coordinator::CancelJob> input = parse_cancel(call);
    if (!input) co_return error_answer(input.error());
    if (const Result<> allowed = co_await may_change(call); !allowed)
      co_return error_answer(allowed.error());
    coordinator::Caller caller = call.caller("cancel", "job " + to_string(call.job), input->reason);
    const auto done = co_await change(parts_, *input, std::move(caller));
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
      return Jobs(cluster->jobs(wanted));
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
    const Job found = co_await ask<Job>(
        host(), [cluster = &parts_.cluster, id = call.job] { return Job(cluster->job(id)); });
    if (!found) co_return error_answer(found.error());
    if (!*found)
      co_return error_answer({ErrorCode::not_found, "there is no job " + to_string(call.job)});
    co_return json_answer(json::serialize(json_of(**found)));
  }

  asio::awaitable<Answer> explain(const Call& call) const {
    using Explained = Result<std::optional<coordinator::Explanation>>;
    const Explained found = co_await ask<Explained>(
        host(),
        [cluster = &parts_.cluster, id = call.job] { return Explained(cluster->explain(id)); });
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
    const Tasks found = co_await ask<Tasks>(
        host(), [cluster = &parts_.cluster, id = call.job] { return Tasks(cluster->tasks(id)); });
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

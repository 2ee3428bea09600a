#include "ops/cli/faults/injection.h"

#include <fmt/core.h>
#include <signal.h>

#include <boost/json/object.hpp>

#include <cerrno>

#include "ops/cli/up/state_files.h"
#include "worker/launcher/launcher.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

Result<> post(Api& api, const json::object& body) {
  const Result<json::value> answer = api.post("/api/v1/faults", body, Api::Repeat::never);
  if (!answer) return answer.error();
  return {};
}

// Whether the pid is still that part of Tutti and not another program that got the number.
bool runs(pid_t pid, std::string_view part) {
  return worker::command_of(pid).find(part) != std::string::npos;
}

Result<UpState> local_cluster() {
  Result<UpState> state = read_up_state(default_state_folder());
  if (!state) return state;
  if (state->faults) return state;
  return Error{ErrorCode::permission_denied, "the cluster was started without --faults"};
}

Result<> cancel(Api& api, std::uint64_t job) {
  const json::object body{{"reason", "the run of faults was ended"}};
  const Result<json::value> answer =
      api.post(fmt::format("/api/v1/jobs/{}/cancel", job), body, Api::Repeat::allowed);
  if (!answer) return answer.error();
  return {};
}

}  // namespace

Result<> inject_fault(Api& api, const FaultOrder& order) {
  const FaultKindRow& row = row_of(order.kind);
  switch (row.target) {
    case FaultTarget::coordinator: {
      const Result<pid_t> killed = kill_part("coordinator");
      if (!killed) return killed.error();
      return {};
    }
    case FaultTarget::rank:
      return post(api, {{"action", row.name}, {"job", order.job}, {"rank", order.rank}});
    case FaultTarget::node: break;
  }
  json::object body{{"action", row.name}, {"worker", order.node}};
  if (row.lasts == FaultLasts::yes) body["lasts_ms"] = order.lasts_ms;
  if (order.delay_ms != 0) body["delay_ms"] = order.delay_ms;
  return post(api, body);
}

Result<> continue_rank(Api& api, std::uint64_t job, std::uint32_t rank) {
  return post(api, {{"action", "continue-rank"}, {"job", job}, {"rank", rank}});
}

Result<> heal_node(Api& api, const std::string& node) {
  return post(api, {{"action", "heal"}, {"worker", node}});
}

Result<pid_t> kill_part(std::string_view part) {
  const Result<UpState> state = local_cluster();
  if (!state) return state.error();
  const pid_t pid = part == "worker" ? state->worker : state->coordinator;
  if (pid <= 0 || !runs(pid, part)) {
    return Error{ErrorCode::unavailable, fmt::format("the {} does not run just now", part)};
  }
  if (::kill(pid, SIGKILL) != 0) {
    return errno_error(fmt::format("cannot kill the {}, pid {}", part, pid), errno);
  }
  return pid;
}

Result<> check_local_cluster() {
  const Result<UpState> state = local_cluster();
  if (!state) return state.error();
  return {};
}

bool FaultUndo::stops_rank(std::uint64_t job, std::uint32_t rank) {
  const std::lock_guard lock(mutex_);
  if (!undone_) stopped_.emplace(job, rank);
  return !undone_;
}

bool FaultUndo::breaks_node(const std::string& node) {
  const std::lock_guard lock(mutex_);
  if (!undone_) broken_.insert(node);
  return !undone_;
}

bool FaultUndo::submits() {
  const std::lock_guard lock(mutex_);
  return !undone_;
}

void FaultUndo::submitted(std::uint64_t job) {
  const std::lock_guard lock(mutex_);
  jobs_.insert(job);
}

void FaultUndo::continued(std::uint64_t job, std::uint32_t rank) {
  const std::lock_guard lock(mutex_);
  stopped_.erase({job, rank});
}

void FaultUndo::healed(const std::string& node) {
  const std::lock_guard lock(mutex_);
  broken_.erase(node);
}

void FaultUndo::ended(std::uint64_t job) {
  const std::lock_guard lock(mutex_);
  jobs_.erase(job);
}

std::vector<std::string> FaultUndo::undo(Api& api) {
  const std::lock_guard lock(mutex_);
  undone_ = true;
  std::vector<std::string> said;
  const auto say = [&](const Result<>& done, const std::string& sentence) {
    said.push_back(done ? sentence
                        : fmt::format("not done: {}: {}", sentence, done.error().message));
  };
  for (const auto& [job, rank] : stopped_) {
    const Result<> done = continue_rank(api, job, rank);
    // One that is not there any more needs nothing.
    if (!done && done.error().code == ErrorCode::not_found) continue;
    say(done, fmt::format("rank {} of job {} goes on", rank, job));
  }
  for (const std::string& node : broken_) {
    say(heal_node(api, node), fmt::format("node {} is healed", node));
  }
  for (const std::uint64_t job : jobs_) {
    say(cancel(api, job), fmt::format("job {} is cancelled", job));
  }
  stopped_.clear();
  broken_.clear();
  jobs_.clear();
  return said;
}

}  // namespace tutti::cli

// tutti fault kill-rank | kill-worker | kill-coordinator: breaks something on purpose, on a cluster
// started with --faults.
#include <fmt/core.h>
#include <signal.h>

#include <boost/json/object.hpp>

#include <cerrno>
#include <memory>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/up/state_files.h"
#include "ops/cli/verbs.h"

namespace tutti::cli {

namespace {

struct RankTarget {
  std::uint64_t job = 0;
  std::uint64_t rank = 0;
};

int done(const Session& session, std::string_view sentence) {
  print(session.json() ? std::string("{}\n") : fmt::format("{}\n", sentence));
  return kDone;
}

int kill_rank(const RankTarget& target, const Session& session) {
  Connection connection;
  const boost::json::object body{
      {"action", "kill-rank"}, {"job", target.job}, {"rank", target.rank}};
  const Result<boost::json::value> answer =
      connection.api().post("/api/v1/faults", body, Api::Repeat::never);
  if (!answer) return fail(answer.error());
  return done(session, fmt::format("killed rank {} of job {}", target.rank, target.job));
}

// Whether the pid is still that part of Tutti and not another program that got the number.
bool runs(pid_t pid, std::string_view part) {
  const Result<std::string> command = read_file(fmt::format("/proc/{}/cmdline", pid), 1 << 20);
  return command && command->find(part) != std::string::npos;
}

int kill_part(std::string_view part, const Session& session) {
  const Result<UpState> state = read_up_state(default_state_folder());
  if (!state) return fail(state.error());
  if (!state->faults) {
    return fail(kRefused, "the cluster was started without --faults");
  }
  const pid_t pid = part == "worker" ? state->worker : state->coordinator;
  if (pid <= 0 || !runs(pid, part)) {
    return fail(kInfrastructure, fmt::format("the {} does not run just now", part));
  }
  if (::kill(pid, SIGKILL) != 0) {
    return fail(errno_error(fmt::format("cannot kill the {}, pid {}", part, pid), errno));
  }
  return done(session, fmt::format("killed the {}, pid {}", part, pid));
}

}  // namespace

Action declare_kill_rank(Arguments& arguments) {
  auto target = std::make_shared<RankTarget>();
  arguments.number("JOB", target->job, "job id");
  arguments.number("RANK", target->rank, "rank, from 0");
  return [target](Session& session) { return kill_rank(*target, session); };
}

Action declare_kill_worker(Arguments&) {
  return [](Session& session) { return kill_part("worker", session); };
}

Action declare_kill_coordinator(Arguments&) {
  return [](Session& session) { return kill_part("coordinator", session); };
}

}  // namespace tutti::cli

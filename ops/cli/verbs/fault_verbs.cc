// tutti fault kill-rank | stop-rank | continue-rank | cut | slow-disk | heal | kill-worker |
// kill-coordinator: breaks something on purpose, on a cluster started with --faults.
#include <fmt/core.h>

#include <boost/json/object.hpp>

#include <memory>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_names.h"
#include "ops/cli/faults/injection.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

struct RankTarget {
  std::string job;
  std::uint64_t rank = 0;
};

struct NodeTarget {
  std::string node;
  std::string lasts = "10s";
  std::string delay = "200ms";
};

int done(const Session& session, std::string_view sentence) {
  print(session.json() ? std::string("{}\n") : fmt::format("{}\n", sentence));
  return kDone;
}

int inject(const Session& session, Api& api, const boost::json::object& body,
           std::string_view sentence) {
  const Result<boost::json::value> answer = api.post("/api/v1/faults", body, Api::Repeat::never);
  if (!answer) return fail(answer.error());
  return done(session, sentence);
}

int signal_rank(const RankTarget& target, const Session& session, std::string_view action,
                std::string_view done) {
  Connection connection;
  const Result<std::uint64_t> id = find_job(connection.api(), target.job);
  if (!id) return fail(id.error());
  const boost::json::object body{{"action", action}, {"job", *id}, {"rank", target.rank}};
  return inject(session, connection.api(), body,
                fmt::format("{} rank {} of job {}", done, target.rank, *id));
}

// A fault that ends by itself; durations as they were typed.
int break_node(const NodeTarget& target, const Session& session, std::string_view action,
               std::string_view sentence) {
  const auto lasts_ms = spec::parse_duration_ms(target.lasts);
  if (!lasts_ms) return fail(kUsage, "--for must be a duration such as 5s or 1m");
  const auto delay_ms = spec::parse_duration_ms(target.delay);
  if (!delay_ms) return fail(kUsage, "--delay must be a duration such as 200ms");
  boost::json::object body{{"action", action}, {"worker", target.node}};
  if (action != "heal") body["lasts_ms"] = *lasts_ms;
  if (action == "slow-disk") body["delay_ms"] = *delay_ms;
  Connection connection;
  return inject(session, connection.api(), body, sentence);
}

int kill_one(std::string_view part, const Session& session) {
  const Result<pid_t> pid = kill_part(part);
  if (!pid) return fail(pid.error());
  return done(session, fmt::format("killed the {}, pid {}", part, *pid));
}

Action declare_signal(Arguments& arguments, std::string_view action, std::string_view done) {
  auto target = std::make_shared<RankTarget>();
  arguments.word("JOB", target->job, "job id or name");
  arguments.number("RANK", target->rank, "rank, from 0");
  return [=](Session& session) { return signal_rank(*target, session, action, done); };
}

}  // namespace

Action declare_kill_rank(Arguments& arguments) {
  return declare_signal(arguments, "kill-rank", "killed");
}
Action declare_stop_rank(Arguments& arguments) {
  arguments.epilogue(
      "As SIGSTOP does: its process lives and does nothing, until continue-rank or until `hang` of "
      "the\n"
      "job's spec has it replaced.");
  return declare_signal(arguments, "stop-rank", "stopped");
}
Action declare_continue_rank(Arguments& arguments) {
  return declare_signal(arguments, "continue-rank", "continued");
}

Action declare_cut(Arguments& arguments) {
  auto target = std::make_shared<NodeTarget>();
  arguments.word("NODE", target->node, "node name");
  arguments.option("--for", target->lasts, "how long, as in 5s (default 10s)");
  arguments.epilogue("The node hears nothing of the coordinator, and is not heard, for that long.");
  return [target](Session& session) {
    return break_node(*target, session, "cut",
                      fmt::format("{} is cut off for {}", target->node, target->lasts));
  };
}

Action declare_slow_disk(Arguments& arguments) {
  auto target = std::make_shared<NodeTarget>();
  arguments.word("NODE", target->node, "node name");
  arguments.option("--for", target->lasts, "how long, as in 5s (default 10s)");
  arguments.option("--delay", target->delay, "of each write to its spools (default 200ms)");
  return [target](Session& session) {
    return break_node(*target, session, "slow-disk",
                      fmt::format("each write of {} to its spools takes {} more, for {}",
                                  target->node, target->delay, target->lasts));
  };
}

Action declare_heal(Arguments& arguments) {
  auto target = std::make_shared<NodeTarget>();
  arguments.word("NODE", target->node, "node name");
  return [target](Session& session) {
    return break_node(*target, session, "heal", fmt::format("{} is healed", target->node));
  };
}

Action declare_kill_worker(Arguments&) {
  return [](Session& session) { return kill_one("worker", session); };
}

Action declare_kill_coordinator(Arguments&) {
  return [](Session& session) { return kill_one("coordinator", session); };
}

}  // namespace tutti::cli

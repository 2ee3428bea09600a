#include "coordinator/life/failures.h"

#include <fmt/core.h>

#include <algorithm>

#include "coordinator/cluster/job_life.h"
#include "coordinator/life/broken_gangs.h"

namespace tutti::coordinator {

namespace {

constexpr int kSignalKill = 9;

const RetryRule* matching(const JobTerms& terms, const wire::RankExited& exit) {
  const auto matches = [&](const RetryRule& rule) {
    if (!rule.log.empty() && exit.log_tail.find(rule.log) == std::string::npos) return false;
    return !rule.by_code || (exit.signal == 0 && exit.code == rule.code);
  };
  const auto at = std::find_if(terms.retry_rules.begin(), terms.retry_rules.end(), matches);
  return at == terms.retry_rules.end() ? nullptr : &*at;
}

// The same loss, said in other words.
Loss because(Loss loss, std::string message) {
  loss.message = std::move(message);
  return loss;
}

}  // namespace

std::string describe_exit(const wire::RankExited& exit) {
  if (!exit.error.empty()) return exit.error;
  if (exit.signal != 0) return fmt::format("ended by signal {}", exit.signal);
  return fmt::format("exited with code {}", exit.code);
}

Loss judge(const JobRecord& job, const wire::RankExited& exit) {
  using enum wire::FailureClass;
  const bool program = job.terms.kind == "run";
  wire::FailureClass failure = exit.failure;
  std::string message = describe_exit(exit);
  const bool bad = exit.code != 0 || exit.signal != 0 || !exit.error.empty();
  const RetryRule* rule = exit.ordered || !bad ? nullptr : matching(job.terms, exit);
  if (rule != nullptr) {
    failure = rule->failure;
    if (!rule->log.empty()) message += fmt::format(" (its log says \"{}\")", rule->log);
  } else if (exit.out_of_memory) {
    failure = user;
  } else if (failure == none) {
    if (exit.ordered || exit.signal == kSignalKill || (!bad && program)) {
      failure = infrastructure;
    } else {
      failure = program ? user : own;
    }
  }
  Loss loss{.failure = failure, .message = std::move(message)};
  // What was executed ends with a code or a signal.
  loss.refused = program && rule == nullptr && failure == user && exit.failure == user &&
                 !exit.began && exit.code == 0 && exit.signal == 0 && !exit.out_of_memory;
  // Neither where it did not begin, or nobody saw its end.
  if (exit.signal != 0) {
    loss.signal = exit.signal;
  } else if (exit.code != 0 || exit.error.empty()) {
    loss.code = exit.code;
  }
  return loss;
}

std::uint64_t backoff_ms(const JobTerms& terms, std::uint32_t failures, double share) {
  if (failures < 2 || terms.backoff_first_ms == 0) return 0;
  std::uint64_t wait = terms.backoff_first_ms;
  const std::uint64_t most = std::max(terms.backoff_first_ms, terms.backoff_max_ms);
  for (std::uint32_t i = 2; i < failures && wait < most; ++i) wait *= 2;
  wait = std::min(wait, most);
  // Spread around it, so that the mean is what was asked for.
  const double factor = 1 + terms.backoff_jitter * (2 * share - 1);
  return static_cast<std::uint64_t>(static_cast<double>(wait) * std::max(0.0, factor));
}

std::uint64_t recovery_backoff_ms(const JobTerms& terms, std::uint32_t failures, double share) {
  return failures == 0 ? 0 : backoff_ms(terms, failures - 1, share);
}

void fail(Desk& desk, JobId job, std::int32_t exit_code, const Loss& loss) {
  stop_job(desk, job,
           {.state = JobState::failed,
            .exit_code = exit_code,
            .failure = loss.failure,
            .message = loss.message,
            .not_before_unix_ms = 0,
            .code = loss.code,
            .signal = loss.signal});
}

bool charge(Desk& desk, JobId id, const Loss& loss) {
  const JobRecord& job = desk.job(id);
  if (!job.failure_counted) {
    desk.record(FailureCounted{.job = id,
                               .failure = loss.failure,
                               .step = desk.soft(id).newest_step,
                               .unix_ms = desk.wall.unix_ms});
  }
  if (loss.failure == wire::FailureClass::own && job.failures_own_here >= kOwnFailuresMax) {
    fail(desk, id, 4,
         because(loss, fmt::format("failed {} times at step {}: {}", kOwnFailuresMax, job.own_step,
                                   loss.message)));
    return false;
  }
  if (loss.failure == wire::FailureClass::infrastructure &&
      job.failures_infrastructure > job.terms.retries_infrastructure) {
    fail(desk, id, 3,
         because(loss, fmt::format("retries.infrastructure ({}) are used up: {}",
                                   job.terms.retries_infrastructure, loss.message)));
    return false;
  }
  return true;
}

void queue_again(Desk& desk, JobId id, const Loss& loss) {
  const JobRecord& job = desk.job(id);
  const std::uint64_t wait = backoff_ms(job.terms, job.failures_in_row, desk.fresh_share());
  Outcome outcome{
      .state = JobState::queued, .exit_code = 0, .failure = loss.failure, .message = loss.message};
  outcome.code = loss.code;
  outcome.signal = loss.signal;
  if (wait != 0) outcome.not_before_unix_ms = desk.wall.unix_ms + static_cast<std::int64_t>(wait);
  stop_job(desk, id, std::move(outcome));
  hold_seats(desk, id);
}

void lose_to_user(Desk& desk, JobId id, const Loss& loss) {
  desk.record(FailureCounted{.job = id,
                             .failure = wire::FailureClass::user,
                             .step = desk.soft(id).newest_step,
                             .unix_ms = desk.wall.unix_ms});
  const JobRecord& job = desk.job(id);
  if (job.failures_user > job.terms.retries_user) return fail(desk, id, 1, loss);
  Loss theirs = loss;
  theirs.failure = wire::FailureClass::user;
  queue_again(desk, id, theirs);
}

Duration backoff_left(const Desk& desk, const JobRecord& job) {
  if (job.state != JobState::queued) return {};
  const std::int64_t left = job.outcome.not_before_unix_ms - desk.wall.unix_ms;
  // Longer than any wait: the time of day was set back meanwhile.
  const std::uint64_t most = std::max(job.terms.backoff_first_ms, job.terms.backoff_max_ms) * 2;
  if (left <= 0 || static_cast<std::uint64_t>(left) > most) return {};
  return std::chrono::milliseconds(left);
}

}  // namespace tutti::coordinator

#include "ops/cli/faults/fault_run.h"

#include <fmt/core.h>

#include <boost/json/object.hpp>

#include <algorithm>
#include <thread>

#include "ops/cli/client/fields.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/faults/aftermath.h"
#include "ops/cli/faults/reference.h"
#include "ops/cli/faults/report.h"
#include "protocol/base/secret.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr Duration kTick = std::chrono::milliseconds(50);
constexpr std::chrono::seconds kLeftWithin{15};

bool has_steps(const FaultHistory& history) {
  return history.spec && history.spec->kind == spec::JobKind::train;
}

}  // namespace

FaultRun::FaultRun(Api& api, Session& session, FaultUndo& undo, const FaultSetup& setup)
    : api_(api),
      session_(session),
      undo_(undo),
      watch_(api, history_),
      key_(random_hex(16)),
      writer_(session) {
  history_.file = setup.file;
  history_.seed = setup.seed;
  history_.spec = setup.spec;
  history_.job.id = setup.job;
  for (const PlannedFault& planned : setup.schedule) {
    InjectedFault fault;
    fault.plan = planned;
    fault.whom = print_victim(planned);
    history_.faults.push_back(std::move(fault));
  }
  deadline_ = monotonic_now() + std::chrono::milliseconds(setup.file.deadline_ms);
}

Result<> FaultRun::run() {
  if (Result<> ready = check_cluster(); !ready) return ready;
  if (Result<> begun = watch_.begin(); !begun) return begun;
  if (history_.job.id == 0) {
    if (Result<> submitted = submit(); !submitted) return submitted;
  }
  watch_.attend(history_.job.id);
  if (Result<> watched = watch_and_inject(); !watched) return watched;
  return settle();
}

// Asked before anything is broken: a fault that nobody takes would come in the middle.
Result<> FaultRun::check_cluster() {
  const Result<json::value> nodes = watch_.ask("/api/v1/nodes");
  if (!nodes) return nodes.error();
  for (const json::value& node : list_of(*nodes, "nodes")) {
    if (text_of(node, "state") != "ready") continue;
    const Result<> healed = heal_node(api_, text_of(node, "name"));
    if (!healed && healed.error().code == ErrorCode::permission_denied) return healed.error();
  }
  const bool kills = std::any_of(
      history_.faults.begin(), history_.faults.end(),
      [](const InjectedFault& fault) { return fault.plan.kind == FaultKind::kill_coordinator; });
  if (!kills) return {};
  if (Result<> local = check_local_cluster(); !local) {
    return std::move(local).error().with_context("kill-coordinator");
  }
  return {};
}

Result<> FaultRun::submit() {
  history_.submitted = true;
  history_.accepted_spec = spec::to_yaml(*history_.spec);
  if (!undo_.submits()) return Error{ErrorCode::aborted, "the run was ended"};
  const json::object body{
      {"spec", history_.accepted_spec}, {"file", history_.file.spec}, {"key", key_}};
  const Result<json::value> answer = api_.post("/api/v1/jobs", body, Api::Repeat::allowed);
  watch_.count("POST /api/v1/jobs", answer ? Result<>{} : Result<>(answer.error()));
  if (!answer) return answer.error();
  history_.job.id = static_cast<std::uint64_t>(whole_of(*answer, "id"));
  undo_.submitted(history_.job.id);
  const std::string notice = text_of(*answer, "notice");
  if (!notice.empty()) return Error{ErrorCode::exhausted, notice};
  writer_.say(fmt::format("faults: job {}, {} faults, seed {}", history_.job.id,
                          history_.faults.size(), history_.seed));
  return {};
}

Result<> FaultRun::watch_and_inject() {
  api_.set_patience(std::chrono::milliseconds(0));  // who is away is looked for at the next tick
  while (!is_finished()) {
    if (Result<> done = tick(); !done) return done;
    if (monotonic_now() >= deadline_) {
      settle_missed("the deadline was over");
      break;
    }
    std::this_thread::sleep_for(kTick);
  }
  writer_.close(progress_);
  history_.end_unix_ms = watch_.now_unix_ms();
  return {};
}

Result<> FaultRun::tick() {
  if (undo_.is_undone()) return Error{ErrorCode::aborted, "the run was ended"};
  if (!watch_.look()) {
    if (watch_.away() < kWatchPatience) return {};
    return Error{ErrorCode::unavailable,
                 fmt::format("the coordinator has not answered for {} s", kWatchPatience.count())};
  }
  if (coordinator_away_ != 0) {
    history_.faults[coordinator_away_ - 1].away_ms = to_ms(monotonic_now() - coordinator_killed_);
    coordinator_away_ = 0;
  }
  note_start();
  end_due();
  if (Result<> injected = inject_due(); !injected) return injected;
  progress_.set_job(watch_.job());
  for (const json::value& step : watch_.take_steps()) progress_.add_step(step);
  writer_.update(progress_, next_text());
  return {};
}

void FaultRun::note_start() {
  if (!began_ && (history_.job.state == "running" || history_.job.step > 0)) {
    began_ = monotonic_now();
  }
}

// Faults that last until now: those of nodes have ended by themselves.
void FaultRun::end_due() {
  for (auto at = lasts_until_.begin(); at != lasts_until_.end();) {
    InjectedFault& fault = history_.faults[at->first];
    if (monotonic_now() < at->second) {
      ++at;
      continue;
    }
    if (fault.plan.kind == FaultKind::stop_rank) {
      const auto rank = static_cast<std::uint32_t>(std::stoul(fault.whom.substr(5)));
      const Result<> done = continue_rank(api_, history_.job.id, rank);
      watch_.count("POST /api/v1/faults", done);
      // One that was replaced meanwhile needs nothing; who does not answer is asked again.
      if (!done && done.error().code == ErrorCode::unavailable) {
        ++at;
        continue;
      }
      undo_.continued(history_.job.id, rank);
      writer_.say(fmt::format("  rank {} goes on", rank));
    } else {
      undo_.healed(fault.plan.node);
    }
    fault.over_unix_ms = watch_.now_unix_ms();
    at = lasts_until_.erase(at);
  }
}

bool FaultRun::is_due(const InjectedFault& fault) const {
  if (fault.plan.clock == FaultClock::step) return history_.job.step >= fault.plan.at;
  return began_ && to_ms(monotonic_now() - *began_) >= static_cast<std::int64_t>(fault.plan.at);
}

Result<> FaultRun::inject_due() {
  if (is_terminal(watch_.job())) return {};
  for (std::size_t i = 0; i < history_.faults.size(); ++i) {
    InjectedFault& fault = history_.faults[i];
    if (fault.outcome != InjectionOutcome::waiting || !is_due(fault)) continue;
    if (coordinator_away_ != 0) return {};  // it takes no order
    const Instant since = due_since_.try_emplace(i, monotonic_now()).first->second;
    const Result<> done = inject(fault);
    if (done) {
      fault.outcome = InjectionOutcome::injected;
      fault.unix_ms = watch_.now_unix_ms();
      fault.step = history_.job.step;
      fault.over_unix_ms = fault.unix_ms;
      if (row_of(fault.plan.kind).lasts == FaultLasts::yes) {
        fault.over_unix_ms = 0;
        if (fault.plan.lasts_ms != 0) {
          lasts_until_[i] = monotonic_now() + std::chrono::milliseconds(fault.plan.lasts_ms);
        }
      }
      if (fault.plan.kind == FaultKind::kill_coordinator) {
        coordinator_away_ = i + 1;
        coordinator_killed_ = monotonic_now();
      }
      writer_.say(fmt::format("  fault {}: {}", fault.plan.number, print_injection(fault)));
      continue;
    }
    fault.why = done.error().message;
    const ErrorCode code = done.error().code;
    if (code == ErrorCode::permission_denied) return done;
    if (code != ErrorCode::invalid_argument && monotonic_now() - since < kInjectWithin) continue;
    fault.outcome = InjectionOutcome::missed;
    writer_.say(fmt::format("  fault {} is given up: {}", fault.plan.number, fault.why));
  }
  return {};
}

Result<> FaultRun::inject(InjectedFault& fault) {
  FaultOrder order{.kind = fault.plan.kind,
                   .job = history_.job.id,
                   .node = fault.plan.node,
                   .lasts_ms = fault.plan.lasts_ms,
                   .delay_ms = fault.plan.delay_ms};
  const FaultTarget target = row_of(fault.plan.kind).target;
  if (target == FaultTarget::rank) {
    // A job that has fewer ranks now than it may have: they are counted round.
    const auto ranks = static_cast<std::uint32_t>(whole_of(watch_.job(), "ranks"));
    order.rank = fault.plan.rank % std::max(1U, ranks);
    fault.whom = fmt::format("rank {}", order.rank);
  }
  const bool of_node = target == FaultTarget::node && order.lasts_ms != 0;
  const bool may = fault.plan.kind == FaultKind::stop_rank ? undo_.stops_rank(order.job, order.rank)
                   : of_node                               ? undo_.breaks_node(order.node)
                                                           : undo_.submits();
  if (!may) return Error{ErrorCode::aborted, "the run was ended"};
  const Result<> done = inject_fault(api_, order);
  watch_.count("POST /api/v1/faults", done);
  // One whose answer was lost on its way may have come about.
  const bool perhaps = !done && (done.error().code == ErrorCode::unavailable ||
                                 done.error().code == ErrorCode::deadline_exceeded);
  if (done || perhaps) ++fault.orders;
  return done;
}

bool FaultRun::all_over() const {
  return lasts_until_.empty() && std::none_of(history_.faults.begin(), history_.faults.end(),
                                              [](const InjectedFault& fault) {
                                                return fault.outcome == InjectionOutcome::waiting;
                                              });
}

// Whether there is nothing more to watch.
bool FaultRun::is_finished() {
  if (watch_.job().is_null() || coordinator_away_ != 0) return false;
  const Instant now = monotonic_now();
  const bool ended = is_terminal(watch_.job());
  if (ended) settle_missed("the job had ended");
  if (!all_over_ && (ended || all_over())) {
    all_over_ = now;
    step_then_ = history_.job.step;
  }
  if (!all_over_) return false;
  const std::int64_t since_ms = to_ms(now - *all_over_);
  const std::uint64_t steps = history_.job.step - std::min(history_.job.step, step_then_);
  const bool runs = history_.job.state == "running";
  const bool goes_on = runs && (has_steps(history_) ? steps > 0 : since_ms >= to_ms(kCalmAfter));
  if (!history_.recovered_ms && (ended || goes_on)) history_.recovered_ms = since_ms;
  if (ended) return true;
  if (!history_.recovered_ms) return since_ms > static_cast<std::int64_t>(history_.file.bound_ms);
  const bool enough = has_steps(history_) ? steps >= kStepsAfter : goes_on;
  return history_.file.until == FaultUntil::recovered && enough;
}

void FaultRun::settle_missed(std::string_view why) {
  for (InjectedFault& fault : history_.faults) {
    if (fault.outcome != InjectionOutcome::waiting) continue;
    fault.outcome = InjectionOutcome::missed;
    fault.why = fault.why.empty() ? std::string(why) : fault.why;
  }
  for (const auto& [at, until] : lasts_until_) {
    history_.faults[at].over_unix_ms = watch_.now_unix_ms();
  }
}

void FaultRun::repeat_submit() {
  if (!history_.submitted) return;
  const json::object body{
      {"spec", history_.accepted_spec}, {"file", history_.file.spec}, {"key", key_}};
  const Result<json::value> answer = api_.post("/api/v1/jobs", body, Api::Repeat::allowed);
  watch_.count("POST /api/v1/jobs", answer ? Result<>{} : Result<>(answer.error()));
  if (answer) history_.repeated = static_cast<std::uint64_t>(whole_of(*answer, "id"));
  if (history_.repeated != history_.job.id) undo_.submitted(history_.repeated);
}

// Faults are over: what lasts is ended, and everything is read again.
Result<> FaultRun::settle() {
  api_.set_patience(kWatchPatience);
  const bool ended = is_terminal(watch_.job());
  if (ended) undo_.ended(history_.job.id);
  repeat_submit();
  if (Result<> read = watch_.finish(); !read) return read;
  if (ended) look_for_processes(api_, history_, kLeftWithin);
  look_at_checkpoints(watch_.job(), history_);
  history_.ledger = look_at_ledger(api_, history_.job.id);
  // A job that goes on as it was meant to is not cancelled.
  const bool left_running = history_.file.until == FaultUntil::recovered && history_.recovered_ms;
  if (left_running) undo_.ended(history_.job.id);
  if (ended || left_running) {
    make_reference(api_, session_, undo_, watch_.job(), history_, left());
  } else {
    history_.reference.problem = "the job has not ended";
  }
  return {};
}

std::string FaultRun::next_text() const {
  std::size_t over = 0;
  const InjectedFault* next = nullptr;
  for (const InjectedFault& fault : history_.faults) {
    if (fault.outcome != InjectionOutcome::waiting) {
      ++over;
    } else if (next == nullptr) {
      next = &fault;
    }
  }
  std::string text = fmt::format("faults {}/{}", over, history_.faults.size());
  if (next != nullptr) {
    text += fmt::format(", {} at {}", row_of(next->plan.kind).name, print_moment(next->plan));
  }
  return text;
}

std::chrono::milliseconds FaultRun::left() const {
  return std::chrono::milliseconds(std::max<std::int64_t>(1, to_ms(deadline_ - monotonic_now())));
}

}  // namespace tutti::cli

// Paths of a job's life that some run of the set must take (coverage.h), as facts and events tell
// of them.
#include <algorithm>
#include <string>
#include <string_view>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

bool says(const std::string& message, std::string_view what) {
  return message.find(what) != std::string::npos;
}

bool leaves_for_good(const Observed& seen, const JobRecord& job) {
  return std::any_of(job.homes.begin(), job.homes.end(), [&](const std::string& home) {
    const coordinator::WorkerRecord* worker = seen.shadow.worker(home);
    return worker != nullptr && worker->drain.leaving;
  });
}

void note_outcome(const Observed& seen, const JobRecord& job, const coordinator::Outcome& outcome) {
  if (says(outcome.message, "within on_loss.wait")) {
    seen.world.reached(outcome.state == JobState::failed
                           ? "on_loss.wait was over, and the job failed"
                           : "on_loss.wait was over, and the job queued again");
  }
  if (says(outcome.message, "limit.time is over")) seen.world.reached("limit.time was over");
  if (says(outcome.message, "limit.queued is over")) seen.world.reached("limit.queued was over");
  if (says(outcome.message, "the notice was over") && leaves_for_good(seen, job)) {
    seen.world.reached("a save for a worker that ends took longer than its notice");
  }
  const PlannedJob* planned = planned_of(seen, job);
  if (planned != nullptr && !planned->spec.retries.on.empty() && outcome.code == 1 &&
      outcome.failure == wire::FailureClass::infrastructure) {
    seen.world.reached("retries.on called an exit code the infrastructure's");
  }
}

void note_start(const Observed& seen, const JobRecord& job,
                const coordinator::GenerationStarted& fact) {
  if (job.state == JobState::queued && job.outcome.not_before_unix_ms != 0) {
    seen.world.reached("a wait before the next try was over");
  }
  const bool shrinks = job.state == JobState::recovering && fact.gang.size() < job.size &&
                       job.release.to == coordinator::ReleaseTo::none;
  if (shrinks && job.terms.loss_then == "shrink" && job.terms.of_node != "shrink") {
    seen.world.reached("on_loss.wait was over, and the job shrank");
  }
}

}  // namespace

void note_paths(const Observed& seen, const coordinator::Fact& fact) {
  if (const auto* stopping = std::get_if<coordinator::JobStopping>(&fact)) {
    note_outcome(seen, *seen.shadow.job(stopping->job), stopping->outcome);
  }
  if (const auto* settled = std::get_if<coordinator::JobSettled>(&fact)) {
    const JobRecord& job = *seen.shadow.job(settled->job);
    // One that stopped has been noted.
    if (job.state == JobState::queued) note_outcome(seen, job, settled->outcome);
  }
  if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
    note_start(seen, *seen.shadow.job(started->job), *started);
  }
  const auto* draining = std::get_if<coordinator::NodeDraining>(&fact);
  if (draining != nullptr && draining->drain.cause == coordinator::DrainCause::quarantine &&
      draining->drain.steady_ms == 0 && says(draining->drain.reason, "failures of") &&
      !says(draining->drain.reason, "could not be started")) {
    seen.world.reached("a node was set aside for failures of several users");
  }
}

void note_paths(const Observed& seen, const coordinator::Event& event) {
  const bool hang = event.kind == coordinator::EventKind::hang;
  if (hang && says(event.message, "stands still")) {
    seen.world.reached("a hang was told by a process that stood still");
  }
  if (hang && says(event.message, "has not entered collective")) {
    seen.world.reached("a hang was told by its collective");
  }
  if (says(event.message, "not held for it any more")) {
    seen.world.reached("on_loss.wait was over, and a broken gang's seats were given up");
  }
}

}  // namespace tutti::simulation

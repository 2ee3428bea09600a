#include "tests/simulation/scenario/clients.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace tutti::simulation {

namespace {

constexpr Duration kAskAgain = 1s;

bool is_passing(ErrorCode code) {
  return code == ErrorCode::unavailable || code == ErrorCode::exhausted;
}

}  // namespace

void Clients::begin(const Plan& plan) {
  for (const PlannedJob& job : plan.jobs) {
    jobs_[job.spec.name] = job;
    world_.after(job.at, [this, job] { submit(job); });
  }
  acts_left_ = plan.acts.size();
  for (const PlannedAct& act : plan.acts) {
    world_.after(act.at, [this, act] {
      --acts_left_;
      act.act(*this);
    });
  }
}

bool Clients::content() const {
  if (acts_left_ != 0 || !to_undrain_.empty()) return false;
  for (const auto& [name, job] : jobs_) {
    if (!accepted_.contains(name) && !given_up_.contains(name)) return false;
  }
  return true;
}

coordinator::RequestId Clients::send(SentRequest request) {
  request.sent = world_.now();
  request.life = coordinator_.life();
  request.answered = coordinator_.state() == nullptr;  // the connection is refused
  world_.trace("client: " + request.what + " " + request.job);
  requests_[next_request_] = std::move(request);
  return coordinator::RequestId{next_request_++};
}

bool Clients::knows_all(const std::vector<PlannedAfter>& after) const {
  return std::all_of(after.begin(), after.end(),
                     [&](const PlannedAfter& each) { return accepted_.contains(each.job); });
}

void Clients::name_jobs(const std::vector<PlannedAfter>& after, spec::AfterSpec& out) const {
  for (const PlannedAfter& each : after) {
    auto& jobs = each.on == "ok" ? out.ok : each.on == "failed" ? out.failed : out.any;
    jobs.push_back(accepted_.at(each.job).value);
  }
}

void Clients::ask(const PlannedJob& job) {
  const std::string& name = job.spec.name;
  ranks_.loads[name] = job.load;
  const std::string& key = job.key.empty() ? name : job.key;
  const coordinator::RequestId request =
      send({.what = "submit", .job = name, .other_spec = key != name});
  // What was refused earlier says nothing of this one, which may be durable though its answer was
  // lost with a coordinator.
  refused_.erase(name);
  newest_submit_[name] = request;
  coordinator::SubmitJob submit{
      .request = request, .key = key, .owner = job.owner, .yaml = name, .spec = job.spec};
  name_jobs(job.after, submit.spec.after);
  coordinator_.on(submit);
}

void Clients::submit(const PlannedJob& job) {
  const std::string& name = job.spec.name;
  if (accepted_.contains(name) || given_up_.contains(name)) return;
  if (knows_all(job.after)) ask(job);
  world_.after(kAskAgain, [this, job] { submit(job); });
}

void Clients::submit_once(const PlannedJob& job) { ask(job); }

void Clients::submit_again(const std::string& name) { ask(jobs_.at(name)); }

void Clients::submit_other(const std::string& name) {
  if (!accepted_.contains(name)) return;
  PlannedJob other = jobs_.at(name);
  other.key = name;
  other.spec.name = name + "-other";
  other.spec.train.steps += 1;
  other.load.steps = other.spec.train.steps;
  ask(other);
}

void Clients::cancel(const std::string& name, const std::string& reason) {
  coordinator::CancelJob cancel;
  cancel.reason = reason;
  ask_to_cancel(name, cancel);
}

void Clients::cancel_saving(const std::string& name, const std::string& reason) {
  coordinator::CancelJob cancel;
  cancel.reason = reason;
  cancel.save = true;
  ask_to_cancel(name, cancel);
}

void Clients::cancel_task(const std::string& name, std::uint32_t index) {
  const auto array = accepted_.find(name);
  if (array == accepted_.end()) {
    if (given_up_.contains(name)) return;
    return world_.after(kAskAgain, [this, name, index] { cancel_task(name, index); });
  }
  coordinator::CancelJob cancel;
  cancel.reason = "this one is not wanted";
  cancel.request = send({.what = "cancel", .job = name});
  cancel.job = JobId{array->second.value + 1 + index};
  coordinator_.on(cancel);
}

// Until it is seen to have ended.
void Clients::ask_to_cancel(const std::string& name, coordinator::CancelJob cancel) {
  const auto job = accepted_.find(name);
  if (job == accepted_.end()) {
    if (given_up_.contains(name)) return;
    return world_.after(kAskAgain, [this, name, cancel] { ask_to_cancel(name, cancel); });
  }
  if (coordinator_.state() != nullptr) {
    const coordinator::JobRecord* record = coordinator_.state()->find_job(job->second);
    if (record == nullptr || coordinator::is_terminal(record->state)) return;
  }
  cancelled_.insert(name);
  cancel.request = send({.what = "cancel", .job = name});
  cancel.job = job->second;
  coordinator_.on(cancel);
  // Whoever asked to save waits longer before insisting.
  const Duration patience = cancel.save ? 60s : 2s;
  world_.after(patience, [this, name, cancel] { ask_to_cancel(name, cancel); });
}

void Clients::drain(const std::string& node, Duration deadline) {
  if (drained_.contains(node) || to_undrain_.contains(node)) return;
  // Not while an undrain that was said again may still be waiting to be heard.
  for (const auto& [id, request] : requests_) {
    if (request.what != "undrain" || request.job != node || request.answered) continue;
    if (request.life == coordinator_.life()) return;
  }
  coordinator::DrainNode drain;
  drain.request = send({.what = "drain", .job = node, .deadline = deadline});
  drain.node = node;
  drain.reason = "maintenance";
  drain.deadline_ms = static_cast<std::uint64_t>(to_ms(deadline));
  coordinator_.on(drain);
  world_.after(kAskAgain, [this, node, deadline] { drain_again(node, deadline); });
}

void Clients::drain_again(const std::string& node, Duration deadline) {
  if (!drained_.contains(node)) drain(node, deadline);
}

void Clients::undrain(const std::string& node) {
  drained_.erase(node);
  to_undrain_.insert(node);
  coordinator::UndrainNode undrain;
  undrain.request = send({.what = "undrain", .job = node});
  undrain.node = node;
  coordinator_.on(undrain);
  world_.after(kAskAgain, [this, node] {
    if (to_undrain_.contains(node)) undrain_again(node);
  });
}

void Clients::drain_under(const std::string& name, std::size_t rank, const PlannedDrain& planned) {
  const auto job = accepted_.find(name);
  if (job == accepted_.end() || coordinator_.state() == nullptr) return;
  const std::optional<coordinator::JobDetail> detail = coordinator_.state()->job(job->second);
  if (!detail || detail->processes.empty()) return;
  const std::string node = detail->processes[rank % detail->processes.size()].worker;
  drain(node, planned.deadline);
  world_.after(planned.lasts, [this, node] { undrain(node); });
}

void Clients::undrain_again(const std::string& node) { undrain(node); }

void Clients::set_quotas(const std::map<std::string, std::string>& quotas) {
  coordinator_.configure(send({.what = "quotas", .job = {}}),
                         *coordinator::scheduler::parse_quotas(quotas));
}

void Clients::inject(const std::string& name, std::uint32_t rank, coordinator::FaultAction action) {
  const auto job = accepted_.find(name);
  if (job == accepted_.end()) return;
  const coordinator::RequestId request = send({.what = "inject", .job = name});
  coordinator_.on(coordinator::InjectFault{
      .request = request, .action = action, .job = job->second, .rank = rank});
}

void Clients::inject_worker(const std::string& worker, coordinator::FaultAction action) {
  coordinator::InjectFault fault;
  fault.request = send({.what = "inject", .job = worker});
  fault.action = action;
  fault.worker = worker;
  coordinator_.on(fault);
}

void Clients::answered(const coordinator::Answer& answer) {
  const auto at = requests_.find(answer.request.value);
  if (at == requests_.end()) return world_.violate("I18", "an answer to nobody's request");
  SentRequest& request = at->second;
  if (std::exchange(request.answered, true)) {
    return world_.violate("I18", request.what + " of " + request.job + " is answered twice");
  }
  if (const auto* accepted = std::get_if<coordinator::JobAccepted>(&answer.body)) {
    world_.trace("client: accepted " + request.job);
    accept(request, *accepted);
  } else if (const auto* error = std::get_if<Error>(&answer.body)) {
    world_.trace("client: refused " + request.job + ": " + error->message);
    if (request.what == "submit") refuse(answer.request, request, *error);
  } else {
    done(request);
  }
}

void Clients::done(const SentRequest& request) {
  if (request.what == "undrain") to_undrain_.erase(request.job);
  if (request.what != "drain" || to_undrain_.contains(request.job)) return;
  world_.reached("a node was drained");
  drained_.emplace(request.job, world_.now() + request.deadline);
}

void Clients::accept(const SentRequest& request, const coordinator::JobAccepted& accepted) {
  if (request.other_spec) {
    return world_.violate("I2", "the key of " + request.job + " was taken for another spec");
  }
  const auto [at, news] = accepted_.emplace(request.job, accepted.job);
  if (!news && coordinator_.state()->find_job(at->second) == nullptr) {
    world_.reached("a key stood for a job that was forgotten");
  }
  if (!news && at->second != accepted.job) {
    world_.violate("I2", "key " + request.job + " gave jobs " + to_string(at->second) + " and " +
                             to_string(accepted.job));
  }
  if (!news) world_.reached("a key was used again");
  refused_.erase(request.job);
}

void Clients::refuse(coordinator::RequestId id, const SentRequest& request, const Error& error) {
  // A later submit of the same may still be taken.
  const bool newest = newest_submit_.at(request.job) == id;
  if (request.other_spec) {
    if (error.code == ErrorCode::already_exists) {
      world_.reached("a key with another spec was refused");
    }
    if (newest) refused_.insert(request.job);
    return;
  }
  if (is_passing(error.code)) {
    world_.reached("a submit was refused for a while");
    if (error.message.find(" may have ") != std::string::npos) {
      world_.reached("a submit was refused for its owner's quota");
    }
    if (newest && !accepted_.contains(request.job)) refused_.insert(request.job);
    return;
  }
  world_.reached("a submit was refused for good");
  if (accepted_.contains(request.job)) {
    return world_.violate(
        "I2", "key " + request.job + " was accepted and then refused: " + error.message);
  }
  if (newest) refused_.insert(request.job);
  given_up_.insert(request.job);
}

}  // namespace tutti::simulation

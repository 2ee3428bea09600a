#include "coordinator/gateway/gateway_state.h"

#include <algorithm>

namespace tutti::gateway {
namespace {

ErrorCode code_of(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (to_string(code) == name) return code;
  }
  return ErrorCode::internal;
}

Error error_of(const wire::Generated& generated) {
  if (generated.finish == "cancelled") return {ErrorCode::aborted, "the request was cancelled"};
  if (generated.error.empty()) return {code_of(generated.error_code), "the serving rank failed"};
  return {code_of(generated.error_code), generated.error};
}

}  // namespace

std::vector<Effect> GatewayState::on(Instant now, Input input) {
  now_ = now;
  std::visit([this](auto& message) { handle(message); }, input);
  return std::exchange(effects_, {});
}

std::optional<Instant> GatewayState::next_due() const {
  if (dues_.empty()) return std::nullopt;
  return dues_.begin()->first;
}

std::vector<std::string> GatewayState::models() const {
  std::set<std::string> names;
  for (const auto& [id, link] : links_) names.insert(link.model);
  return {names.begin(), names.end()};
}

void GatewayState::handle(StartRequest& input) {
  ++counters_.started;
  Request& request = requests_[input.request];
  request.model = std::move(input.model);
  request.generate = std::move(input.generate);
  request.generate.request = input.request.value;
  if (const LinkId link = best_link(request.model)) return send(input.request, request, link);
  if (reachable(request.model)) {
    return fail(input.request,
                {ErrorCode::exhausted,
                 "the model " + request.model + " has too many open requests; try again later"});
  }
  Duration wait = settings_.held_max;
  if (!expected(request.model)) {
    if (now_ >= complete_from_) return fail(input.request, absent(request.model));
    wait = complete_from_ - now_;
  }
  // This one is among those that are held.
  if (held(request.model) > settings_.open_max) {
    return fail(input.request,
                {ErrorCode::exhausted, "too many requests wait for the model " + request.model +
                                           " to be served again; try again later"});
  }
  set_due(input.request, request, wait);
}

void GatewayState::handle(const CancelRequest& input) {
  const auto at = requests_.find(input.request);
  if (at == requests_.end()) return;
  ++counters_.cancelled;
  if (at->second.link) {
    effects_.push_back(
        SendToServer{at->second.link, wire::CancelGenerate{.request = input.request.value}});
  }
  forget(input.request);
}

void GatewayState::handle(const ServingOpened& input) {
  if (const LinkId old = link_of_job(input.job)) {
    const Link& link = links_.at(old);
    if (link.endpoint == input.endpoint && link.key == input.key && link.model == input.model)
      return;
    links_.at(old).leaving = true;
    if (link.open.empty()) drop_link(old, {});
  }
  const LinkId id{++last_link_};
  Link& link = links_[id];
  link.job = input.job;
  link.model = input.model;
  link.endpoint = input.endpoint;
  link.key = input.key;
  recent_.erase(input.model);
  effects_.push_back(OpenLink{id, input.endpoint, input.key});
}

void GatewayState::handle(const ServingClosed& input) {
  std::vector<LinkId> closed;
  for (const auto& [id, link] : links_) {
    if (link.job == input.job) closed.push_back(id);
  }
  if (closed.empty()) return;
  const std::string model = links_.at(closed.back()).model;
  for (const LinkId id : closed) {
    drop_link(id, {ErrorCode::unavailable, "the serving rank was lost or stopped"});
  }
  std::erase_if(recent_, [this](const auto& entry) { return entry.second <= now_; });
  if (recent_.size() >= settings_.recent_models_max) {
    const auto oldest =
        std::min_element(recent_.begin(), recent_.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    recent_.erase(oldest);
  }
  recent_[model] = now_ + settings_.recent_max;
}

void GatewayState::handle(const LinkConnected& input) {
  auto at = links_.find(input.link);
  if (at == links_.end()) return;
  // A second connection without a loss in between: what was sent on the first is lost.
  if (at->second.connected) handle(LinkLost{input.link});
  at = links_.find(input.link);
  if (at == links_.end()) return;
  at->second.connected = true;
  send_held(at->second.model);
}

void GatewayState::handle(const LinkLost& input) {
  const auto at = links_.find(input.link);
  if (at == links_.end()) return;
  at->second.connected = false;
  const Error lost{ErrorCode::unavailable, "the connection to the serving rank was lost"};
  if (at->second.leaving) return drop_link(input.link, lost);
  fail_all_of(input.link, lost);
}

void GatewayState::handle(AnswerArrived& input) {
  const RequestId id{input.generated.request};
  const auto at = requests_.find(id);
  if (at == requests_.end() || at->second.link != input.link) {
    ++counters_.stray_answers;
    return;
  }
  const std::string model = at->second.model;
  const std::string& finish = input.generated.finish;
  if (finish.empty()) {
    set_due(id, at->second, settings_.token_max);
    effects_.push_back(Give{id, std::move(input.generated)});
    return;
  }
  if (finish == "stop" || finish == "length") {
    ++counters_.finished;
    counters_.prompt_tokens += input.generated.prompt_tokens;
    counters_.completion_tokens += input.generated.completion_tokens;
    effects_.push_back(Give{id, std::move(input.generated)});
    forget(id);
  } else {
    fail(id, error_of(input.generated));
  }
}

void GatewayState::handle(const SendRefused& input) {
  if (requests_.contains(input.request)) fail(input.request, input.error);
}

void GatewayState::handle(const Tick&) {
  while (!dues_.empty() && dues_.begin()->first <= now_) {
    const RequestId id = dues_.begin()->second;
    const Request& request = requests_.at(id);
    if (!request.link) {
      fail(id, absent(request.model));
      continue;
    }
    effects_.push_back(SendToServer{request.link, wire::CancelGenerate{.request = id.value}});
    fail(id, {ErrorCode::deadline_exceeded, "the serving rank gave nothing for " +
                                                std::to_string(to_ms(settings_.token_max) / 1000) +
                                                " s"});
  }
}

LinkId GatewayState::link_of_job(JobId job) const {
  for (const auto& [id, link] : links_) {
    if (link.job == job && !link.leaving) return id;
  }
  return {};
}

LinkId GatewayState::best_link(const std::string& model) const {
  LinkId best;
  std::size_t fewest = settings_.open_max;
  for (const auto& [id, link] : links_) {
    if (link.model != model || !link.connected || link.leaving) continue;
    if (link.open.size() >= fewest) continue;
    best = id;
    fewest = link.open.size();
  }
  return best;
}

bool GatewayState::reachable(const std::string& model) const {
  return std::any_of(links_.begin(), links_.end(), [&](const auto& entry) {
    return entry.second.model == model && entry.second.connected && !entry.second.leaving;
  });
}

bool GatewayState::expected(const std::string& model) const {
  const auto at = recent_.find(model);
  if (at != recent_.end() && at->second > now_) return true;
  return std::any_of(links_.begin(), links_.end(),
                     [&](const auto& entry) { return entry.second.model == model; });
}

Error GatewayState::absent(const std::string& model) const {
  if (expected(model))
    return {ErrorCode::unavailable, "no rank serves the model " + model + " now; try again later"};
  return {ErrorCode::not_found, "the model " + model + " is not served here"};
}

std::size_t GatewayState::held(const std::string& model) const {
  return static_cast<std::size_t>(std::count_if(
      requests_.begin(), requests_.end(),
      [&](const auto& entry) { return !entry.second.link && entry.second.model == model; }));
}

void GatewayState::send(RequestId id, Request& request, LinkId link) {
  links_.at(link).open.insert(id);
  request.link = link;
  set_due(id, request, settings_.token_max);
  effects_.push_back(SendToServer{link, std::exchange(request.generate, {})});
}

void GatewayState::send_held(const std::string& model) {
  for (auto& [id, request] : requests_) {
    if (request.link || request.model != model) continue;
    const LinkId link = best_link(model);
    if (!link) return;
    send(id, request, link);
  }
}

void GatewayState::fail(RequestId id, Error error) {
  ++counters_.failed;
  effects_.push_back(Fail{id, std::move(error)});
  forget(id);
}

void GatewayState::fail_all_of(LinkId link, const Error& error) {
  const std::set<RequestId> open = links_.at(link).open;
  for (const RequestId id : open) fail(id, error);
}

void GatewayState::drop_link(LinkId link, const Error& error) {
  links_.at(link).leaving = false;  // else it would go with the last of its requests
  fail_all_of(link, error);
  links_.erase(link);
  effects_.push_back(CloseLink{link});
}

void GatewayState::forget(RequestId id) {
  const auto at = requests_.find(id);
  const LinkId sent = at->second.link;
  dues_.erase({at->second.due, id});
  requests_.erase(at);
  const auto link = links_.find(sent);
  if (link == links_.end()) return;
  link->second.open.erase(id);
  if (link->second.leaving && link->second.open.empty()) drop_link(sent, {});
}

void GatewayState::set_due(RequestId id, Request& request, Duration after) {
  dues_.erase({request.due, id});
  request.due = now_ + after;
  dues_.insert({request.due, id});
}

}  // namespace tutti::gateway

#include "coordinator/gateway/gateway_host.h"

#include <algorithm>
#include <utility>

#include "protocol/base/log.h"
#include "protocol/base/secret.h"
#include "protocol/wire/link.h"

namespace tutti::gateway {

GatewayHost::GatewayHost(actor::Runtime& runtime)
    : host_(runtime, {.name = "gateway", .mailbox_max = 16'384}) {}

void GatewayHost::open(const Serving& serving) {
  close(serving.job);
  transport::ClientOptions options;
  options.address = serving.endpoint;
  options.routing_id = "gateway." + random_hex(8);
  options.server_key = serving.key;
  const JobId job = serving.job;
  transport::ClientHandlers handlers;
  handlers.on_frame = [this, job](std::string frame) { on_frame(job, frame); };
  handlers.on_connected = [this, job] { on_connected(job); };
  handlers.on_disconnected = [this, job] {
    Backend& backend = backends_.at(job);
    backend.connected = false;
    fail_all(backend, {ErrorCode::unavailable, "the serving rank was lost; try again"});
  };
  auto link = transport::open_client(host_, options, std::move(handlers));
  if (!link) {
    TUTTI_LOG_ERROR("gateway", "job {} cannot be reached: {}", to_string(job),
                    link.error().message);
    return;
  }
  TUTTI_LOG_INFO("gateway", "model {} is served by job {} at {}", serving.model, to_string(job),
                 serving.endpoint);
  backends_[job] = {serving, *std::move(link), false, {}};
}

void GatewayHost::close(JobId job) {
  const auto found = backends_.find(job);
  if (found == backends_.end()) return;
  fail_all(found->second, {ErrorCode::unavailable, "the model is not served any more"});
  backends_.erase(found);
}

std::vector<std::string> GatewayHost::models() const {
  std::vector<std::string> out;
  for (const auto& [job, backend] : backends_) out.push_back(backend.serving.model);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

Result<GatewayHost::Begun> GatewayHost::begin(const std::string& model, wire::Generate generate) {
  Backend* chosen = nullptr;
  for (auto& [job, backend] : backends_) {
    if (backend.serving.model != model) continue;
    if (chosen == nullptr || backend.open.size() < chosen->open.size()) chosen = &backend;
  }
  if (chosen == nullptr)
    return Error{ErrorCode::not_found, "the model " + model + " is not served here"};
  if (open_requests_ >= kOpenRequestsMax)
    return Error{ErrorCode::exhausted, "too many requests are open; try again later"};
  generate.request = ++last_request_;
  const auto request = std::make_shared<OpenRequest>(chosen->serving.job, std::move(generate));
  chosen->open[request->generate().request] = request;
  ++open_requests_;
  ++counters_.requests;
  if (chosen->connected) send(*chosen, request);  // else once it is; the reader has a deadline
  return request;
}

void GatewayHost::send(Backend& backend, const Begun& request) {
  const Result<std::string> frame = wire::encode_frame<wire::ToServer>(request->generate());
  const Result<> sent = frame ? backend.link->send(*frame) : Result<>(frame.error());
  if (sent) return;
  ++counters_.failed;
  --open_requests_;
  backend.open.erase(request->generate().request);
  request->fail(sent.error());
}

void GatewayHost::abandon(const Begun& request) {
  const auto found = backends_.find(request->job());
  if (found == backends_.end() || found->second.open.erase(request->generate().request) == 0)
    return;
  --open_requests_;
  ++counters_.failed;
  const Result<std::string> frame =
      wire::encode_frame<wire::ToServer>(wire::CancelGenerate{request->generate().request});
  if (frame) static_cast<void>(found->second.link->send(*frame));
}

void GatewayHost::on_connected(JobId job) {
  Backend& backend = backends_.at(job);
  backend.connected = true;
  const auto waiting = backend.open;  // send may take one out
  for (const auto& [number, request] : waiting) send(backend, request);
}

void GatewayHost::on_frame(JobId job, const std::string& frame) {
  auto decoded = wire::decode_frame<wire::FromServer>(frame, frames_);
  if (!decoded) {
    TUTTI_LOG_WARNING("gateway", "job {} sent a bad frame: {}", to_string(job),
                      decoded.error().message);
    return;
  }
  auto& part = std::get<wire::Generated>(decoded->message);
  Backend& backend = backends_.at(job);
  const auto found = backend.open.find(part.request);
  if (found == backend.open.end()) return;
  const Begun request = found->second;
  if (!part.finish.empty()) {
    count_end(part);
    --open_requests_;
    backend.open.erase(found);
    request->add(std::move(part));
  } else if (!request->add(std::move(part))) {
    abandon(request);
  }
}

void GatewayHost::fail_all(Backend& backend, const Error& error) {
  for (const auto& [number, request] : backend.open) request->fail(error);
  counters_.failed += backend.open.size();
  open_requests_ -= backend.open.size();
  backend.open.clear();
}

void GatewayHost::count_end(const wire::Generated& last) {
  ++(last.finish == "error" ? counters_.failed : counters_.finished);
  counters_.prompt_tokens += last.prompt_tokens;
  counters_.completion_tokens += last.completion_tokens;
}

}  // namespace tutti::gateway

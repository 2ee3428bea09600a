#include "coordinator/gateway/gateway_host.h"

#include <utility>

#include "protocol/base/log.h"
#include "protocol/base/secret.h"
#include "protocol/wire/link.h"

namespace tutti::gateway {

namespace {

// Open HTTP connections bound the requests, and these the messages.
constexpr std::size_t kMailboxMax = 16'384;

}  // namespace

GatewayHost::GatewayHost(actor::Runtime& runtime, const GatewaySettings& settings)
    : host_(runtime, {.name = "gateway", .mailbox_max = kMailboxMax}),
      state_(monotonic_now(), settings) {}

GatewayHost::~GatewayHost() { shut(); }

void GatewayHost::shut() {
  links_.clear();
  host_.close();
}

void GatewayHost::open(ServingOpened serving) {
  TUTTI_LOG_INFO("gateway", "model {} is served by job {} at {}", serving.model,
                 to_string(serving.job), serving.endpoint);
  run(std::move(serving));
}

void GatewayHost::close(JobId job) { run(ServingClosed{job}); }

GatewayHost::Begun GatewayHost::begin(std::string model, wire::Generate generate) {
  const RequestId id{++last_request_};
  auto request = std::make_shared<OpenRequest>(id);
  open_[id] = request;
  run(StartRequest{id, std::move(model), std::move(generate)});
  return request;
}

void GatewayHost::leave(RequestId request) {
  if (open_.erase(request) != 0) run(CancelRequest{request});
}

GatewayMetrics GatewayHost::metrics() const {
  const std::lock_guard lock(guard_);
  return metrics_;
}

void GatewayHost::run(Input input) {
  inbox_.push_back(std::move(input));
  while (!inbox_.empty()) {
    Input next = std::move(inbox_.front());
    inbox_.pop_front();
    for (Effect& effect : state_.on(monotonic_now(), std::move(next))) {
      std::visit([this](auto& one) { perform(one); }, effect);
    }
  }
  rearm();
  const std::lock_guard lock(guard_);
  metrics_ = {state_.counters(), state_.open_requests(), state_.links()};
}

// A timer that fires too early is harmless, so it is replaced only by an earlier one.
void GatewayHost::rearm() {
  const std::optional<Instant> due = state_.next_due();
  if (!due || (timer_ != 0 && timer_due_ <= *due)) return;
  if (timer_ != 0) host_.cancel(timer_);
  timer_due_ = *due;
  timer_ = host_.arm(std::max(Duration::zero(), *due - monotonic_now()), [this] {
    timer_ = 0;
    run(Tick{});
  });
}

void GatewayHost::on_frame(LinkId link, const std::string& frame) {
  auto decoded = wire::decode_frame<wire::FromServer>(frame, frames_);
  if (!decoded) {
    TUTTI_LOG_WARNING("gateway", "a serving rank sent a bad frame: {}", decoded.error().message);
    return;
  }
  run(AnswerArrived{link, std::move(std::get<wire::Generated>(decoded->message))});
}

void GatewayHost::perform(const OpenLink& effect) {
  transport::ClientOptions options;
  options.address = effect.endpoint;
  options.routing_id = "gateway." + random_hex(8);
  options.server_key = effect.key;
  const LinkId link = effect.link;
  transport::ClientHandlers handlers;
  handlers.on_frame = [this, link](const std::string& frame) { on_frame(link, frame); };
  handlers.on_connected = [this, link] { run(LinkConnected{link}); };
  handlers.on_disconnected = [this, link] { run(LinkLost{link}); };
  auto opened = transport::open_client(host_, options, std::move(handlers));
  if (opened) {
    links_[link] = *std::move(opened);
  } else {
    TUTTI_LOG_ERROR("gateway", "no link to {}: {}", effect.endpoint, opened.error().message);
  }
}

void GatewayHost::perform(const CloseLink& effect) { links_.erase(effect.link); }

void GatewayHost::perform(const SendToServer& effect) {
  Result<std::string> frame = wire::encode_frame<wire::ToServer>(effect.message);
  Result<> sent;
  if (!frame) {
    sent = Error{ErrorCode::invalid_argument, "the request is too long: " + frame.error().message};
  } else if (const auto link = links_.find(effect.link); link != links_.end()) {
    sent = link->second->send(*frame);
  } else {
    sent = Error{ErrorCode::unavailable, "the serving rank cannot be reached"};
  }
  const auto* generate = std::get_if<wire::Generate>(&effect.message);
  if (!sent && generate != nullptr)
    inbox_.push_back(SendRefused{RequestId{generate->request}, sent.error()});
}

void GatewayHost::perform(Give& effect) {
  const auto at = open_.find(effect.request);
  if (at == open_.end()) return;
  const bool last = !effect.generated.finish.empty();
  const bool takes_more = at->second->add(std::move(effect.generated));
  if (takes_more) return;
  open_.erase(at);
  if (!last) inbox_.push_back(CancelRequest{effect.request});
}

void GatewayHost::perform(const Fail& effect) {
  const auto at = open_.find(effect.request);
  if (at == open_.end()) return;
  at->second->fail(effect.error);
  open_.erase(at);
}

}  // namespace tutti::gateway

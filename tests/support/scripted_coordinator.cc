#include "tests/support/scripted_coordinator.h"

#include <fmt/core.h>

#include <future>

#include "protocol/base/file.h"
#include "protocol/base/secret.h"
#include "tests/support/patience.h"

namespace tutti::test {

namespace {

constexpr std::chrono::seconds kDeadline{10};

std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

}  // namespace

ScriptedCoordinator::ScriptedCoordinator(const std::filesystem::path& folder, std::uint16_t port)
    : runtime_(1), host_(std::make_unique<actor::ActorHost>(runtime_)) {
  auto keys = transport::load_or_make_keys(folder / "keys");
  TUTTI_ASSERT(keys.ok());
  keys_ = *keys;
  transport::ServerOptions options;
  options.address = fmt::format("tcp://127.0.0.1:{}", port);
  options.keys = keys_;
  auto server = transport::open_server(
      *host_, options, {.on_frame = [this](const std::string& peer, const std::string& bytes) {
        on_frame(peer, bytes);
      }});
  TUTTI_ASSERT(server.ok());
  server_ = *std::move(server);
  port_ = port_of(server_->address());
  auto liveness = transport::LivenessListener::open(
      *host_, "127.0.0.1", 0,
      {.on_opened = [](const std::string&) {}, .on_ended = [](const std::string&) {}});
  TUTTI_ASSERT(liveness.ok());
  liveness_ = *std::move(liveness);
  const auto written = write_file_atomically(
      folder / "join.json",
      fmt::format(R"({{"endpoint": "{}", "server_key": "{}", "join_token": "secret"}})",
                  server_->address(), keys_.public_key),
      0600);
  TUTTI_ASSERT(written.ok());
  runtime_.start();
}

ScriptedCoordinator::~ScriptedCoordinator() {
  std::promise<void> ended;
  const auto told = host_->tell([&] {
    server_.reset();
    liveness_.reset();
    host_->close();
    ended.set_value();
  });
  if (told) ended.get_future().wait();
  runtime_.stop();
}

void ScriptedCoordinator::refuse(const std::string& code) {
  const std::lock_guard lock(mutex_);
  refusal_ = code;
}

void ScriptedCoordinator::send(const std::string& peer, const wire::ToWorker& message,
                               Sequence sequence) {
  wire::FrameHeader header;
  header.session = session_;
  header.sequence = sequence;
  const auto frame = wire::encode_frame(message, header);
  TUTTI_ASSERT(frame.ok());
  // A peer that has just gone is what some tests are about.
  if (!server_->send(peer, *frame)) return;
}

void ScriptedCoordinator::order(wire::ToWorker message) {
  const auto told = host_->tell([this, message = std::move(message)] {
    const std::lock_guard lock(mutex_);
    last_order_ = Sequence{last_order_.value + 1};
    send(peer_, message, last_order_);
  });
  TUTTI_ASSERT(told.ok());
}

void ScriptedCoordinator::order_unknown() {
  constexpr std::uint16_t kMadeUpKind = 999;
  const auto told = host_->tell([this] {
    const std::lock_guard lock(mutex_);
    last_order_ = Sequence{last_order_.value + 1};
    const std::string body = "what a later version says";
    wire::FrameHeader header;
    header.kind = kMadeUpKind;
    header.session = session_;
    header.sequence = last_order_;
    header.length = static_cast<std::uint32_t>(body.size());
    const auto sent = server_->send(peer_, wire::encode_header(header) + body);
    TUTTI_ASSERT(sent.ok());
  });
  TUTTI_ASSERT(told.ok());
}

void ScriptedCoordinator::on_frame(const std::string& peer, const std::string& bytes) {
  const std::lock_guard lock(mutex_);
  const auto frame = wire::decode_frame<wire::FromWorker>(bytes, counters_);
  TUTTI_ASSERT(frame.ok());
  if (const auto* hello = std::get_if<wire::Hello>(&frame->message)) {
    if (!refusal_.empty()) {
      send(peer, wire::Refused{.code = refusal_, .message = "by the test"});
      return;
    }
    peer_ = peer;
    session_ = SessionId{session_.value + 1};
    liveness_->forget(token_);
    token_ = random_hex(8);
    liveness_->expect(token_);
    last_order_ = {};
    reports_.restart();
    wire::Welcome welcome;
    welcome.session = session_;
    welcome.heartbeat_ms = 50;
    welcome.lease_ms = 2000;
    welcome.liveness_port = liveness_->port();
    welcome.liveness_token = token_;
    welcome.greeting = hello->greeting;
    messages_.push_back(frame->message);
    send(peer, welcome);
    changed_.notify_all();
    return;
  }
  if (frame->header.session != session_ || peer != peer_) return;
  if (frame->header.sequence) {
    const auto verdict = reports_.admit(frame->header.sequence);
    send(peer, wire::ReportsAcked{.through = reports_.taken()});
    if (verdict != wire::ReceiveGate::Verdict::take) return;
  }
  on_message(peer, frame->message);
  changed_.notify_all();
}

void ScriptedCoordinator::on_message(const std::string& peer, const wire::FromWorker& message) {
  if (const auto* heartbeat = std::get_if<wire::Heartbeat>(&message)) {
    if (!heartbeat->restart_refused.empty()) messages_.push_back(message);
    send(peer, wire::HeartbeatAnswered{});
  } else if (const auto* chunk = std::get_if<wire::SpoolData>(&message)) {
    Text& text = streams_[{chunk->process, chunk->stream}];
    text.bytes.resize(chunk->offset);  // what an earlier coordinator took is not known here
    text.bytes += chunk->bytes;
    text.end = text.end || chunk->end;
    send(peer, wire::SpoolAcked{.process = chunk->process,
                                .stream = chunk->stream,
                                .offset = text.bytes.size(),
                                .end = text.end});
  } else {
    messages_.push_back(message);
  }
}

void ScriptedCoordinator::wait_until(const std::function<bool()>& found) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patient(kDeadline), found);
}

bool ScriptedCoordinator::wait_text(ProcessId process, wire::Stream stream,
                                    const std::string& text) {
  bool out = false;
  wait_until([&] {
    out = streams_[{process, stream}].bytes.find(text) != std::string::npos;
    return out;
  });
  return out;
}

std::optional<std::string> ScriptedCoordinator::wait_stream(ProcessId process,
                                                            wire::Stream stream) {
  std::optional<std::string> out;
  wait_until([&] {
    const Text& text = streams_[{process, stream}];
    if (text.end) out = text.bytes;
    return text.end;
  });
  return out;
}

}  // namespace tutti::test

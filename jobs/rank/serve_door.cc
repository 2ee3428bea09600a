#include "jobs/rank/serve_door.h"

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <future>
#include <mutex>
#include <optional>

#include "protocol/actor/actor_host.h"
#include "protocol/actor/runtime.h"
#include "protocol/base/log.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/keys.h"
#include "protocol/wire/link.h"

namespace tutti::rank {

struct ServeDoor::Impl {
  // Runs `task` on the endpoint's strand and waits for it.
  template <class Task>
  Result<> on_strand(Task task) {
    std::promise<void> done;
    auto told = host->tell([&] {
      task();
      done.set_value();
    });
    if (told) done.get_future().wait();
    return told;
  }

  // On the strand.
  void take_frame(const std::string& peer, std::string_view frame) {
    auto decoded = wire::decode_frame<wire::ToServer>(frame, counters);
    if (!decoded) {
      TUTTI_LOG_WARNING("serve", "a request is not understood: {}", decoded.error().message);
      return;
    }
    {
      const std::lock_guard lock(mutex);
      if (inbox.size() < kInboxMax) {
        inbox.push_back({peer, std::move(decoded->message)});
        arrived.notify_one();
        return;
      }
    }
    if (const auto* request = std::get_if<wire::Generate>(&decoded->message))
      refuse(peer, *request);
  }

  void refuse(const std::string& peer, const wire::Generate& request) {
    wire::Generated refusal;
    refusal.request = request.request;
    refusal.finish = "error";
    refusal.error = "too many requests wait";
    refusal.error_code = to_string(ErrorCode::exhausted);
    const auto frame = wire::encode_frame<wire::FromServer>(refusal);
    if (frame) (void)endpoint->send(peer, *frame);
  }

  actor::Runtime runtime{1};
  std::optional<actor::ActorHost> host;
  std::unique_ptr<transport::ServerEndpoint> endpoint;  // made, used and ended on the strand
  transport::KeyPair keys = transport::make_keys();
  std::string address;
  wire::FrameCounters counters;

  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<Arrived> inbox;
  bool woken = false;
};

ServeDoor::ServeDoor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ServeDoor>> ServeDoor::open() {
  auto impl = std::make_unique<Impl>();
  Impl* const door = impl.get();
  door->host.emplace(door->runtime, actor::HostOptions{.name = "serve"});
  door->runtime.start();
  Result<> opened;
  auto told = door->on_strand([&] {
    transport::ServerOptions options;
    options.keys = door->keys;
    // Set by the worker where peers of this rank, or the gateway, are on other machines.
    if (const char* data_host = std::getenv("TUTTI_DATA_HOST")) {
      const std::string_view at = data_host;
      options.address = at.find(':') == std::string_view::npos
                            ? "tcp://" + std::string(at) + ":0"
                            : "tcp://[" + std::string(at) + "]:0";
    }
    auto endpoint = transport::open_server(
        *door->host, options,
        {.on_frame = [door](const std::string& peer, const std::string& frame) {
          door->take_frame(peer, frame);
        }});
    if (endpoint) {
      door->endpoint = *std::move(endpoint);
      door->address = door->endpoint->address();
    } else {
      opened = endpoint.error();
    }
  });
  if (!told) return told.error();
  if (!opened) return opened.error();
  return std::unique_ptr<ServeDoor>(new ServeDoor(std::move(impl)));
}

ServeDoor::~ServeDoor() {
  (void)impl_->on_strand([this] {
    impl_->endpoint.reset();
    impl_->host->close();
  });
  impl_->runtime.stop();
}

const std::string& ServeDoor::address() const { return impl_->address; }
const std::string& ServeDoor::public_key() const { return impl_->keys.public_key; }

void ServeDoor::wait() {
  std::unique_lock lock(impl_->mutex);
  impl_->arrived.wait(lock, [this] { return impl_->woken || !impl_->inbox.empty(); });
}

bool ServeDoor::wait_within(Duration within) {
  std::unique_lock lock(impl_->mutex);
  return impl_->arrived.wait_for(lock, within, [this] { return !impl_->inbox.empty(); });
}

void ServeDoor::wake() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->woken = true;
  }
  impl_->arrived.notify_one();
}

std::vector<Arrived> ServeDoor::take() {
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->inbox, {});
}

std::vector<std::size_t> ServeDoor::give(std::span<const Answer> answers) {
  std::vector<std::size_t> lost;
  std::vector<Result<std::string>> frames;
  for (const Answer& answer : answers) {
    frames.push_back(wire::encode_frame<wire::FromServer>(answer.generated));
  }
  const auto told = impl_->on_strand([&] {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (!frames[i] || !impl_->endpoint->send(answers[i].peer, *frames[i])) lost.push_back(i);
    }
  });
  if (!told) {
    for (std::size_t i = 0; i < answers.size(); ++i) lost.push_back(i);
  }
  return lost;
}

}  // namespace tutti::rank

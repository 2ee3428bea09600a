// The worker's side of the control link, by hand: says Hello and answers orders as a test wants.
#pragma once

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "protocol/actor/actor_host.h"
#include "protocol/base/file.h"
#include "protocol/transport/endpoint.h"
#include "protocol/wire/link.h"
#include "tests/support/patience.h"

namespace tutti::test {

struct FakeWorkerOptions {
  std::string name = "node-a";
  transport::KeyPair keys = {};  // made for the connection
};

class FakeWorker {
 public:
  explicit FakeWorker(const std::string& join_json, const FakeWorkerOptions& own = {}) {
    const boost::json::value join = boost::json::parse(join_json);
    hello_.worker = own.name;
    hello_.incarnation = "1";
    hello_.greeting = 1;
    hello_.slots = 2;
    hello_.cores = 2;
    hello_.profiles = {"portable"};
    hello_.join_token = join.at("join_token").as_string().c_str();
    transport::ClientOptions options;
    options.address = join.at("endpoint").as_string().c_str();
    options.server_key = join.at("server_key").as_string().c_str();
    options.routing_id = own.name + ".1";
    options.keys = own.keys;
    runtime_.start();
    on_strand([&] {
      auto opened = transport::open_client(host_, options,
                                           {.on_frame = [this](std::string frame) { take(frame); },
                                            .on_connected = [this] { connected_.set(); },
                                            .on_disconnected = {}});
      if (opened) link_ = *std::move(opened);
    });
  }
  FakeWorker(const FakeWorker&) = delete;
  FakeWorker& operator=(const FakeWorker&) = delete;
  ~FakeWorker() {
    on_strand([&] { link_.reset(); });
    runtime_.stop();
  }

  wire::Hello& hello() { return hello_; }
  bool connected() { return connected_.wait(); }
  bool connected_within(Duration within) { return connected_.wait(within); }

  void say(const wire::FromWorker& message) { send(message, Sequence{}); }
  void report(const wire::FromWorker& message) { send(message, Sequence{++last_report_}); }

  // The next message of this type, whatever comes before it is dropped; nothing within ten seconds.
  template <class Message>
  std::optional<Message> expect() {
    std::unique_lock lock(guard_);
    const auto until = std::chrono::steady_clock::now() + patient(std::chrono::seconds(10));
    for (;;) {
      while (!received_.empty()) {
        const wire::ToWorker message = std::move(received_.front());
        received_.pop_front();
        if (const auto* found = std::get_if<Message>(&message)) return *found;
      }
      if (changed_.wait_until(lock, until) == std::cv_status::timeout && received_.empty())
        return std::nullopt;
    }
  }

  // What a rank says of itself until its job runs; false: nobody asked it to form a group.
  bool begin_rank(const wire::StartRank& start) {
    wire::RankStarted started;
    name(started, start);
    started.pid = 4711;
    report(started);
    wire::RankReady ready;
    name(ready, start);
    ready.address = "127.0.0.1:5555";
    report(ready);
    if (!expect<wire::FormGroup>()) return false;
    wire::GroupFormed formed;
    name(formed, start);
    report(formed);
    return true;
  }
  // Its process has ended, by itself.
  void end_rank(const wire::StartRank& start, std::int32_t exit_code) {
    wire::RankExited exited;
    name(exited, start);
    exited.code = exit_code;
    exited.failure = exit_code == 0 ? wire::FailureClass::none : wire::FailureClass::user;
    report(exited);
  }

 private:
  template <class Report>
  static void name(Report& report, const wire::StartRank& start) {
    report.job = start.job;
    report.generation = start.generation;
    report.process = start.process;
  }

  class Flag {
   public:
    void set() {
      const std::lock_guard lock(guard_);
      up_ = true;
      changed_.notify_all();
    }
    bool wait(Duration within = patient(std::chrono::seconds(10))) {
      std::unique_lock lock(guard_);
      return changed_.wait_for(lock, within, [&] { return up_; });
    }

   private:
    std::mutex guard_;
    std::condition_variable changed_;
    bool up_ = false;
  };

  void on_strand(std::function<void()> action) {
    Flag done;
    if (host_.tell([&] {
          action();
          done.set();
        })) {
      done.wait();
    }
  }

  void send(const wire::FromWorker& message, Sequence sequence) {
    on_strand([&] {
      wire::FrameHeader header;
      header.session = session_;
      header.sequence = sequence;
      static_cast<void>(link_->send(*wire::encode_frame<wire::FromWorker>(message, header)));
    });
  }

  void take(const std::string& frame) {
    auto decoded = wire::decode_frame<wire::ToWorker>(frame, counters_);
    if (!decoded) return;
    if (const auto* welcome = std::get_if<wire::Welcome>(&decoded->message))
      session_ = welcome->session;
    // Orders are acknowledged at once, so that each comes once.
    if (decoded->header.sequence.value == last_order_ + 1) {
      ++last_order_;
    } else if (decoded->header.sequence) {
      return;
    }
    if (decoded->header.sequence) {
      wire::FrameHeader header;
      header.session = session_;
      static_cast<void>(link_->send(
          *wire::encode_frame<wire::FromWorker>(wire::OrdersAcked{Sequence{last_order_}}, header)));
    }
    const std::lock_guard lock(guard_);
    received_.push_back(std::move(decoded->message));
    changed_.notify_all();
  }

  actor::Runtime runtime_{1};
  actor::ActorHost host_{runtime_};
  wire::Hello hello_;
  Flag connected_;
  wire::FrameCounters counters_;
  std::unique_ptr<transport::ClientEndpoint> link_;
  SessionId session_;
  std::uint64_t last_report_ = 0;
  std::uint64_t last_order_ = 0;
  std::mutex guard_;
  std::condition_variable changed_;
  std::deque<wire::ToWorker> received_;
};

}  // namespace tutti::test

// What lies behind an ActorHost, for code that is written on Asio: its strand, and whether it is
// still open.
//
// Handlers given to Asio hold the shared State (or a weak pointer to their own) and ask `open`
// first, so that nothing runs after close(). Heavy: include from .cc files only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "protocol/actor/actor_host.h"

namespace tutti::actor {

using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;

struct ActorHost::State {
  State(Runtime& of, HostOptions with)
      : runtime(of), options(std::move(with)), strand(of.context().get_executor()) {}

  Runtime& runtime;
  const HostOptions options;
  Strand strand;
  std::atomic<bool> open{true};
  std::atomic<std::size_t> waiting{0};  // told and not begun

  // On the strand only.
  TimerId last_timer = 0;
  std::unordered_map<TimerId, std::unique_ptr<boost::asio::steady_timer>> timers;
  struct Watch {
    boost::asio::posix::stream_descriptor descriptor;
    std::function<void()> handler;
  };
  std::unordered_map<int, std::shared_ptr<Watch>> watches;
};

inline Strand& strand_of(ActorHost& host) { return host.state()->strand; }

}  // namespace tutti::actor

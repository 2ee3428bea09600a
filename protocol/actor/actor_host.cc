#include "protocol/actor/actor_host.h"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/post.hpp>

#include "protocol/actor/strand.h"
#include "protocol/base/assert.h"

namespace tutti::actor {

namespace asio = boost::asio;

ActorHost::ActorHost(Runtime& runtime, HostOptions options)
    : state_(std::make_shared<State>(runtime, std::move(options))) {}

ActorHost::~ActorHost() { close(); }

namespace {

// Takes a place in the mailbox.
Result<> enter(ActorHost::State& state) {
  if (!state.open) return Error{ErrorCode::aborted, state.options.name + " has been closed"};
  if (state.waiting.fetch_add(1) >= state.options.mailbox_max) {
    state.waiting.fetch_sub(1);
    return Error{ErrorCode::exhausted, "the mailbox of " + state.options.name + " is full"};
  }
  return {};
}

auto letter(std::shared_ptr<ActorHost::State> state, std::function<void()> message) {
  return [state = std::move(state), run = std::move(message)] {
    state->waiting.fetch_sub(1);
    if (state->open) run();
  };
}

}  // namespace

Result<> ActorHost::tell(std::function<void()> message) {
  if (Result<> entered = enter(*state_); !entered) return entered;
  asio::post(state_->strand, letter(state_, std::move(message)));
  return {};
}

Result<> ActorHost::tell_last(std::function<void()> message) {
  if (Result<> entered = enter(*state_); !entered) return entered;
  asio::defer(state_->strand, letter(state_, std::move(message)));
  return {};
}

bool ActorHost::has_mail() const { return state_->waiting > 0; }

TimerId ActorHost::arm(Duration after, std::function<void()> handler) {
  if (!state_->open) return 0;
  const TimerId id = ++state_->last_timer;
  auto& timer = state_->timers[id];
  if (after <= Duration::zero()) {
    // Behind what waits already, and without the kernel's clock.
    asio::post(state_->strand, [state = state_, id, run = std::move(handler)] {
      if (state->open && state->timers.erase(id) > 0) run();
    });
    return id;
  }
  timer = std::make_unique<asio::steady_timer>(state_->runtime.context());
  timer->expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(after));
  timer->async_wait(asio::bind_executor(
      state_->strand,
      [state = state_, id, run = std::move(handler)](const boost::system::error_code&) {
        // A timer that was cancelled after it fired has left the table, which says more than the
        // error code.
        if (state->open && state->timers.erase(id) > 0) run();
      }));
  return id;
}

void ActorHost::cancel(TimerId timer) { state_->timers.erase(timer); }

namespace {

void wait_readable(const std::shared_ptr<ActorHost::State>& state,
                   const std::shared_ptr<ActorHost::State::Watch>& watch) {
  watch->descriptor.async_wait(
      asio::posix::descriptor_base::wait_read,
      asio::bind_executor(state->strand, [state, watch](const boost::system::error_code& error) {
        if (error || !state->open || !watch->handler) return;
        // The handler may unwatch, which takes `handler` away: keep a copy while it runs.
        const std::function<void()> handler = watch->handler;
        handler();
        if (state->open && watch->handler) wait_readable(state, watch);
      }));
}

}  // namespace

Result<> ActorHost::watch_readable(int descriptor, std::function<void()> handler) {
  if (!state_->open) return Error{ErrorCode::aborted, state_->options.name + " has been closed"};
  TUTTI_ASSERT(!state_->watches.contains(descriptor));
  auto watch = std::make_shared<State::Watch>(
      State::Watch{asio::posix::stream_descriptor(state_->runtime.context()), std::move(handler)});
  boost::system::error_code error;
  watch->descriptor.assign(descriptor, error);
  if (error) return errno_error("cannot watch a descriptor", error.value());
  state_->watches[descriptor] = watch;
  wait_readable(state_, watch);
  return {};
}

void ActorHost::unwatch(int descriptor) {
  const auto found = state_->watches.find(descriptor);
  if (found == state_->watches.end()) return;
  found->second->handler = nullptr;
  found->second->descriptor.release();
  state_->watches.erase(found);
}

void ActorHost::close() {
  if (!state_->open.exchange(false)) return;
  state_->timers.clear();
  for (auto& [descriptor, watch] : state_->watches) {
    watch->handler = nullptr;
    watch->descriptor.release();
  }
  state_->watches.clear();
}

bool ActorHost::on_strand() const { return state_->strand.running_in_this_thread(); }

Runtime& ActorHost::runtime() { return state_->runtime; }

}  // namespace tutti::actor

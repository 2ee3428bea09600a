#include "protocol/actor/runtime.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/strand.hpp>

#include <cstdlib>
#include <exception>
#include <thread>

#include "protocol/base/assert.h"
#include "protocol/base/log.h"

namespace tutti::actor {

namespace {

using SignalSet = boost::asio::signal_set;

void serve(boost::asio::io_context& context) {
  try {
    context.run();
  } catch (const std::exception& escaped) {
    TUTTI_LOG_ERROR("actor", "broken invariant: an exception escaped a handler: {}",
                    escaped.what());
    std::abort();
  } catch (...) {
    TUTTI_LOG_ERROR("actor", "broken invariant: an exception escaped a handler");
    std::abort();
  }
}

void wait_for_signal(const std::shared_ptr<SignalSet>& set,
                     const std::shared_ptr<std::function<void(int)>>& handler) {
  set->async_wait([set, handler](const boost::system::error_code& error, int number) {
    if (error) return;
    (*handler)(number);
    wait_for_signal(set, handler);
  });
}

}  // namespace

struct Runtime::State {
  explicit State(std::size_t thread_count)
      : context(static_cast<int>(thread_count) + 1),
        work(context.get_executor()),
        background(thread_count) {}

  boost::asio::io_context context;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work;
  std::size_t background;
  std::vector<std::thread> threads;
};

Runtime::Runtime(std::size_t threads) : state_(std::make_unique<State>(threads)) {}

Runtime::~Runtime() { stop_and_join(); }

void Runtime::run() {
  start();
  serve(state_->context);
  stop_and_join();
}

void Runtime::start() {
  TUTTI_ASSERT(state_->threads.empty());
  for (std::size_t i = 0; i < state_->background; ++i) {
    state_->threads.emplace_back([this] { serve(state_->context); });
  }
}

void Runtime::stop() { state_->context.stop(); }

void Runtime::stop_and_join() {
  stop();
  for (std::thread& thread : state_->threads) thread.join();
  state_->threads.clear();
}

void Runtime::on_signals(const std::vector<int>& signals, std::function<void(int)> handler) {
  auto set = std::make_shared<SignalSet>(boost::asio::make_strand(state_->context));
  for (const int number : signals) set->add(number);
  wait_for_signal(set, std::make_shared<std::function<void(int)>>(std::move(handler)));
}

boost::asio::io_context& Runtime::context() { return state_->context; }

}  // namespace tutti::actor

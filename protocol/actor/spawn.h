// Starts a coroutine whose escaped exception aborts the process: co_spawn(..., detached) would
// swallow it.
//
// Heavy (Asio's coroutines): include from .cc files only.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>

#include <exception>
#include <utility>

namespace tutti::actor {

// Ends the process, naming the exception. For completion handlers of coroutines.
[[noreturn]] void escaped_exception(std::exception_ptr exception);

template <class Executor>
void spawn(const Executor& executor, boost::asio::awaitable<void> task) {
  boost::asio::co_spawn(executor, std::move(task), [](std::exception_ptr exception) {
    if (exception) escaped_exception(std::move(exception));
  });
}

}  // namespace tutti::actor

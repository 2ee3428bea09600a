#include "ops/cli/client/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdlib>

namespace tutti::cli {

namespace {

sigset_t interrupting_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, number);
  return set;
}

}  // namespace

OnInterrupt::OnInterrupt(std::function<void()> action) {
  const sigset_t set = interrupting_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC));
  over_.reset(::eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this, action = std::move(action)] { wait(action); });
}

OnInterrupt::~OnInterrupt() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(over_.get(), &one, sizeof one);
  thread_.join();
  const sigset_t set = interrupting_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void OnInterrupt::wait(const std::function<void()>& action) const {
  pollfd ready[] = {{signals_.get(), POLLIN, 0}, {over_.get(), POLLIN, 0}};
  while (::poll(ready, 2, -1) < 0) {
  }
  if (ready[0].revents == 0) return;
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
  // The action may wait for a coordinator that is away: the next Ctrl-C ends this program at once.
  const sigset_t set = interrupting_signals();
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_DFL);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  action();
  std::_Exit(128 + static_cast<int>(info.ssi_signo));
}

}  // namespace tutti::cli

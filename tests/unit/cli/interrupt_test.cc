#include <catch2/catch.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/cli/client/interrupt.h"

namespace tutti::cli {
namespace {

// A process that has one last thing to do at Ctrl-C, and does not get it done.
[[noreturn]] void wait_for_ever(int said) {
  const auto say = [said](char what) {
    [[maybe_unused]] const ssize_t written = ::write(said, &what, 1);
  };
  const OnInterrupt interrupt([&] {
    say('a');
    while (true) ::pause();
  });
  say('r');
  while (true) ::pause();
}

char heard(int from) {
  char what = 0;
  return ::read(from, &what, 1) == 1 ? what : '-';
}

TEST_CASE("interrupt: the second Ctrl-C does not wait for what the first one began") {
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);  // nobody waits for it longer, whatever is wrong
    wait_for_ever(pipe[1]);
  }
  ::close(pipe[1]);
  REQUIRE(heard(pipe[0]) == 'r');
  ::kill(child, SIGINT);
  REQUIRE(heard(pipe[0]) == 'a');
  ::kill(child, SIGINT);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
  ::close(pipe[0]);
}

}  // namespace
}  // namespace tutti::cli

// What only a group with a library below it can do: wait inside that for a peer's device, and be
// freed by an abort, a death, a deadline and the library's own errors; begin and finish apart; form
// and end with a library that hangs, ends of another version. tests/unit/collective has the rest:
// there the lengths that go ahead by the sockets are what waits.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <latch>

#include "kernels/collective/nccl_group.h"
#include "tests/emulation/nccl_groups.h"
#include "tests/support/becomes.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/patience.h"
#include "tests/unit/collective/rank_threads.h"

namespace tutti::kernels {

namespace {

// The cases of this file make their NCCL groups themselves: run_ranks gives them plain ones.
class PlainGroups {
 public:
  PlainGroups() { test::set_wrapping(test::Wrapping::none); }
  ~PlainGroups() { test::set_wrapping(test::Wrapping::over_nccl); }
  PlainGroups(const PlainGroups&) = delete;
  PlainGroups& operator=(const PlainGroups&) = delete;
};

constexpr std::size_t kWords = 64;

// One of two ranks with a device, of which rank 1 sends its words and rank 0 receives them.
class OneOfTwo {
 public:
  // The options' streams are this rank's own.
  OneOfTwo(std::unique_ptr<Communicator> plain, NcclOptions options) : rank(plain->rank()) {
    auto streams = std::pair{cuda::make_stream(), cuda::make_stream()};
    auto memory = cuda::make_device_memory(kWords * sizeof(int));
    TUTTI_ASSERT(streams.first && streams.second && memory);
    compute_ = *std::move(streams.first);
    transfers_ = *std::move(streams.second);
    memory_ = *std::move(memory);
    options.compute = compute_.get();
    options.transfers = transfers_.get();
    auto made = NcclGroup::over(std::move(plain), options);
    TUTTI_ASSERT(made);
    group = *std::move(made);
  }

  ~OneOfTwo() { group.reset(); }  // it uses the streams
  OneOfTwo(const OneOfTwo&) = delete;
  OneOfTwo& operator=(const OneOfTwo&) = delete;

  std::span<int> words() const { return {static_cast<int*>(memory_.get()), kWords}; }
  Result<> begin() {
    transfer_ = {rank == 0 ? Transfer::Direction::receive : Transfer::Direction::send, 1 - rank,
                 std::as_writable_bytes(words())};
    return group->begin(std::span(&transfer_, 1));
  }
  Result<> exchange() {
    if (auto begun = begin(); !begun) return begun;
    return group->finish();
  }
  // What it sends is not computed before then.
  void compute_after(std::latch& gate) {
    emulation::enqueue(compute_.get(), [&gate]() -> std::string {
      gate.wait();
      return {};
    });
  }
  cudaStream_t compute() const { return compute_.get(); }
  cudaStream_t transfers() const { return transfers_.get(); }

  std::uint32_t rank;
  std::unique_ptr<Communicator> group;

 private:
  cuda::Stream compute_;
  cuda::Stream transfers_;
  cuda::DeviceMemory memory_;
  Transfer transfer_ = {};
};

void run_two(const NcclOptions& options, const std::function<void(OneOfTwo&)>& rank_function) {
  const PlainGroups plain_groups;
  NcclOptions common = options;
  auto id = make_nccl_id();
  REQUIRE(id);
  common.id = *id;
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> plain) {
    TUTTI_ASSERT(cudaSetDevice(static_cast<int>(plain->rank()) + 1) == cudaSuccess);
    OneOfTwo own(std::move(plain), common);
    rank_function(own);
  });
}

// Rank 0 waits inside the library for rank 1's device, until `ends` ends that; the device goes on
// when rank 1 has heard of it, too: else its transfer might end well. The errors of both, whose
// communicators are aborted.
std::vector<Error> wait_for_device(const NcclOptions& options,
                                   const std::function<void(Communicator&)>& ends) {
  const auto before = emulation::nccl_ends();
  std::latch heard(1);
  std::latch computed(1);
  std::vector<Error> errors(2);
  run_two(options, [&](OneOfTwo& own) {
    if (own.rank == 1) {
      own.compute_after(computed);
      errors[1] = own.exchange().error();
      heard.count_down();
      return;
    }
    const auto begun = own.begin();
    std::thread ending([&] { ends(*own.group); });
    errors[0] = begun ? own.group->finish().error() : begun.error();
    ending.join();
    own.group.reset();
    heard.wait();
    computed.count_down();
  });
  CHECK(emulation::nccl_ends().aborted == before.aborted + 2);
  return errors;
}

constexpr Duration kSoon = std::chrono::milliseconds(50);

}  // namespace

TEST_CASE(
    "nccl: an abort frees a rank that waits for a peer's device, and the first reason is kept") {
  const auto errors = wait_for_device({}, [](Communicator& group) {
    group.abort("the generation is over");
    group.abort("a later reason");
  });
  CHECK(errors[0] == Error{ErrorCode::aborted, "the generation is over"});
  CHECK(errors[1].code == ErrorCode::unavailable);  // its peer's group broke
}

TEST_CASE("nccl: a transfer that does not end in its time is given up") {
  // Longer than beginning takes on a machine that does much else.
  const auto errors = wait_for_device({.operation_deadline = 10 * kSoon}, [](Communicator&) {});
  // Whichever of the two sees it first.
  const auto is_seen = [](const Error& error) {
    return error == Error{ErrorCode::deadline_exceeded, "a transfer did not end in its time"};
  };
  CHECK((is_seen(errors[0]) || is_seen(errors[1])));
  CHECK((is_seen(errors[0]) || errors[0].code == ErrorCode::unavailable));
}

TEST_CASE("nccl: a killed process frees its peer, which waits for its device") {
  const auto before = emulation::nccl_ends();
  auto first = *Listener::open({});
  auto second = *Listener::open({});
  FormOptions form{.addresses = {first->address(), second->address()},
                   .generation = 1,
                   .secret = "s",
                   .ring_bytes = test::ring_bytes_of_suite()};
  auto id = make_nccl_id();
  REQUIRE(id);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    form.rank = 1;
    OneOfTwo own(*second->connect(form), {.id = *id});
    std::latch never(1);
    own.compute_after(never);
    static_cast<void>(own.exchange());
    ::_exit(0);
  }
  second.reset();  // the child's copy is the only one now
  OneOfTwo own(*first->connect(form), {.id = *id});
  REQUIRE(own.begin());
  REQUIRE(::kill(child, SIGKILL) == 0);
  CHECK(own.group->finish().error().code == ErrorCode::unavailable);
  CHECK(own.group->lost_peer() == 1);
  own.group.reset();
  CHECK(emulation::nccl_ends().aborted == before.aborted + 1);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
}

namespace {

// What rank 0 gets of rank 1, which computes 2 in place of 1 once all has been begun; or only when
// the transfer has ended, which then cannot have waited for it.
enum class Finish { after_compute, before_compute };
std::vector<int> begun_and_computed(Finish finish) {
  std::vector<int> got(kWords);
  run_two({}, [&](OneOfTwo& own) {
    const std::span<int> words = own.words();
    const emulation::MemoryUse looks;
    std::fill(words.begin(), words.end(), 1);
    std::latch gate(1);
    if (own.rank == 1) {
      emulation::enqueue(own.compute(), [&]() -> std::string {
        gate.wait();
        std::fill(words.begin(), words.end(), 2);
        return {};
      });
    }
    // Returns although what it sends is not there yet.
    CHECK(own.begin());
    if (finish == Finish::after_compute) gate.count_down();
    CHECK(own.group->finish());
    CHECK(cudaPeekAtLastError() == cudaSuccess);  // ops take it for a launch's
    if (finish == Finish::before_compute) gate.count_down();
    if (own.rank == 0) std::copy(words.begin(), words.end(), got.begin());
    CHECK(cudaStreamSynchronize(own.compute()) == cudaSuccess);
  });
  return got;
}

}  // namespace

TEST_CASE("nccl: what was begun waits for what computes it, and a missing wait is caught") {
  CHECK(begun_and_computed(Finish::after_compute) == std::vector<int>(kWords, 2));
  ::setenv("TUTTI_EMULATION_EVENT_WAITS", "0", 1);
  const std::vector<int> early = begun_and_computed(Finish::before_compute);
  ::unsetenv("TUTTI_EMULATION_EVENT_WAITS");
  CHECK(early == std::vector<int>(kWords, 1));
}

namespace {

// Two ranks that exchange once, over a library that something is wrong with ("": nothing).
std::vector<Result<>> exchange_with(const std::string& wrong, const NcclOptions& options) {
  std::vector<Result<>> results(2);
  if (!wrong.empty()) ::setenv("TUTTI_EMULATION_NCCL", wrong.c_str(), 1);
  run_two(options, [&](OneOfTwo& own) {
    std::latch computed(1);
    if (wrong == "late_error") own.compute_after(computed);  // later than it has begun
    results[own.rank] = own.begin();
    computed.count_down();
    if (results[own.rank]) results[own.rank] = own.group->finish();
    static_cast<void>(cudaStreamSynchronize(own.compute()));
  });
  ::unsetenv("TUTTI_EMULATION_NCCL");
  return results;
}

bool is_error(const Result<>& result, ErrorCode code) {
  return !result && result.error().code == code;
}

}  // namespace

TEST_CASE("nccl: a group that stands to its end is destroyed, one whose end hangs is aborted") {
  const auto before = emulation::nccl_ends();
  const auto well = exchange_with("", {});
  CHECK((well[0] && well[1]));
  CHECK(emulation::nccl_ends().destroyed == before.destroyed + 2);
  CHECK(emulation::nccl_ends().aborted == before.aborted);
  const auto hung = exchange_with("finalize_hangs", {.finalize_deadline = kSoon});
  CHECK((hung[0] && hung[1]));
  CHECK(emulation::nccl_ends().destroyed == before.destroyed + 2);
  CHECK(emulation::nccl_ends().aborted == before.aborted + 2);
  // By threads whose device is the group's.
  CHECK(emulation::nccl_ends().elsewhere == before.elsewhere);
}

TEST_CASE("nccl: a group that does not form in its time is given up") {
  const auto results = exchange_with("forming_hangs", {.form_deadline = kSoon});
  CHECK((is_error(results[0], ErrorCode::deadline_exceeded) ||
         is_error(results[1], ErrorCode::deadline_exceeded)));
  CHECK((!results[0] && !results[1]));
}

TEST_CASE("nccl: an error that the library finds at once, or as it moves, breaks the group") {
  for (const std::string when : {"asynchronous_error", "late_error"}) {
    INFO(when);
    const auto before = emulation::nccl_ends();
    const auto results = exchange_with(when, {});
    CHECK((is_error(results[0], ErrorCode::unavailable) &&
           is_error(results[1], ErrorCode::unavailable)));
    CHECK(emulation::nccl_ends().aborted == before.aborted + 2);
  }
}

TEST_CASE("nccl: an error that the library finds shows to who only looks at the group") {
  std::vector<Result<>> looks(2);
  ::setenv("TUTTI_EMULATION_NCCL", "late_error", 1);
  run_two({}, [&](OneOfTwo& own) {
    std::latch computed(1);
    own.compute_after(computed);  // later than it has begun
    looks[own.rank] = own.begin();
    computed.count_down();
    const Instant until = monotonic_now() + test::patient(std::chrono::seconds(20));
    while (looks[own.rank] && monotonic_now() < until) looks[own.rank] = own.group->look();
    static_cast<void>(cudaStreamSynchronize(own.compute()));
  });
  ::unsetenv("TUTTI_EMULATION_NCCL");
  CHECK((is_error(looks[0], ErrorCode::unavailable) && is_error(looks[1], ErrorCode::unavailable)));
}

TEST_CASE("nccl: peers of a broken group are told before this rank's device has computed") {
  // The device computes for longer than an end may take: that counts from when it has computed.
  const NcclOptions options{.abort_deadline = 40 * kSoon};
  std::latch computed(1);
  std::latch begun(2);
  std::vector<Error> errors(2);
  run_two(options, [&](OneOfTwo& own) {
    if (own.rank == 1) own.compute_after(computed);
    TUTTI_ASSERT(own.begin());
    begun.arrive_and_wait();
    if (own.rank == 1) {
      own.group->abort("the generation is over");
      errors[1] = own.group->finish().error();
      own.group.reset();
      return;
    }
    errors[0] = own.group->finish().error();
    // Rank 1 has told, and is ending: it computes until an end's time is over.
    const Instant over = monotonic_now() + options.abort_deadline;
    static_cast<void>(test::becomes([&] { return monotonic_now() > over; }));
    computed.count_down();
  });
  CHECK(errors[0] == Error{ErrorCode::unavailable, "rank 1 is gone: its group broke"});
  CHECK(errors[1] == Error{ErrorCode::aborted, "the generation is over"});
}

// Run by the case below, each in a process of its own.
TEST_CASE("nccl alone: the abort hangs", "[.]") {
  // Forming hangs, and then so does the abort that follows.
  static_cast<void>(exchange_with("forming_hangs,abort_hangs",
                                  {.form_deadline = kSoon, .abort_deadline = kSoon}));
}
TEST_CASE("nccl alone: the call that finalizes blocks", "[.]") {
  static_cast<void>(
      exchange_with("finalize_blocks", {.finalize_deadline = kSoon, .abort_deadline = kSoon}));
}

// Two transfers have begun, and rank 1's waits for what it computes, which does not end.
TEST_CASE("nccl alone: the computing thread waits for the device", "[.]") {
  run_two({.seen_deadline = kSoon}, [&](OneOfTwo& own) {
    std::latch never(1);
    if (own.rank == 1) own.compute_after(never);
    REQUIRE(own.begin());
    std::thread([&own] { own.group->abort("the generation is over"); }).join();
    static_cast<void>(cudaStreamSynchronize(own.transfers()));
  });
}

TEST_CASE("nccl alone: what the group is queued behind hangs", "[.]") {
  std::latch begun(2);
  run_two({.abort_deadline = kSoon, .compute_deadline = kSoon}, [&](OneOfTwo& own) {
    std::latch never(1);
    own.compute_after(never);
    TUTTI_ASSERT(own.begin());
    begun.arrive_and_wait();
    own.group->abort("the generation is over");
    TUTTI_ASSERT(!own.group->finish());
    own.group.reset();
  });
}

TEST_CASE("nccl: a rank whose group cannot be ended ends as the infrastructure's") {
  const std::string own = std::filesystem::read_symlink("/proc/self/exe").string();
  for (const std::string name :
       {"the abort hangs", "the call that finalizes blocks",
        "the computing thread waits for the device", "what the group is queued behind hangs"}) {
    INFO(name);
    const std::string command = "timeout 20 '" + own + "' 'nccl alone: " + name + "'";
    const int status = std::system((command + " >/dev/null 2>&1").c_str());
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
  }
}

TEST_CASE("nccl: ranks with another version of the library than rank 0's are refused") {
  const PlainGroups plain_groups;
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> plain) {
    auto id = make_nccl_id();
    REQUIRE(id);
    const std::string other = id->substr(0, id->find('-')) + "-2.26.1";
    const auto group = NcclGroup::over(std::move(plain), {.id = other});
    REQUIRE_FALSE(group);
    CHECK(
        group.error() ==
        Error{ErrorCode::unsupported,
              "rank 0 has NCCL 2.26.1, this rank 0.0.0: a group needs one version, so install one "
              "on the machines of its workers (`tutti node` says theirs)"});
  });
}

TEST_CASE("nccl: an identifier that is none is refused") {
  const PlainGroups plain_groups;
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> plain) {
    const auto group = NcclGroup::over(std::move(plain), {.id = "12"});
    REQUIRE_FALSE(group);
    CHECK(group.error().code == ErrorCode::invalid_argument);
  });
}

}  // namespace tutti::kernels

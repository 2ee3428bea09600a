#include "jobs/rank/open_group.h"

#include <catch2/catch.hpp>

#include <future>
#include <latch>
#include <thread>
#include <vector>

namespace tutti::rank {
namespace {

// What happened to a group, and when it may end.
struct Seen {
  std::latch ends{1};
  std::latch may_end{1};
  std::vector<std::string> aborts;
};

class Group final : public kernels::Communicator {
 public:
  explicit Group(Seen& seen) : seen_(seen) {}
  ~Group() override {
    seen_.ends.count_down();
    seen_.may_end.wait();
  }
  std::uint32_t rank() const override { return 0; }
  std::uint32_t size() const override { return 2; }
  Result<> exchange(std::span<const kernels::Transfer>) override { return {}; }
  void abort(std::string_view reason) noexcept override { seen_.aborts.emplace_back(reason); }
  bool aborted() const noexcept override { return !seen_.aborts.empty(); }
  std::int32_t lost_peer() const noexcept override { return -1; }
  std::uint64_t operations() const noexcept override { return 7; }

 private:
  Seen& seen_;
};

std::unique_ptr<kernels::Listener> listener() {
  auto opened = kernels::Listener::open({});
  REQUIRE(opened);
  return *std::move(opened);
}

TEST_CASE("open group: who interrupts or looks does not wait for a group that ends") {
  Seen seen;
  OpenGroup open;
  open.listen(listener());
  open.hold(std::make_unique<Group>(seen));
  CHECK(open.operations() == 7);
  std::thread computing([&] { open.listen(listener()); });
  seen.ends.wait();
  auto orders = std::async(std::launch::async, [&] {
    open.interrupt("the generation is over");
    return open.operations();
  });
  const bool answered = orders.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  seen.may_end.count_down();
  computing.join();
  CHECK(answered);
  CHECK(orders.get() == 0);
  CHECK(seen.aborts.empty());  // it had ended for everybody
}

TEST_CASE("open group: an interruption before the group stands reaches it, and no later one") {
  Seen first;
  Seen second;
  for (Seen* const seen : {&first, &second}) seen->may_end.count_down();
  OpenGroup open;
  open.listen(listener());
  open.interrupt("a rank is lost");
  open.interrupt("another one");
  open.hold(std::make_unique<Group>(first));
  CHECK(first.aborts == std::vector<std::string>{"a rank is lost"});
  open.listen(listener());
  open.hold(std::make_unique<Group>(second));
  CHECK(second.aborts.empty());
  open.end();
  CHECK(open.get() == nullptr);
}

}  // namespace
}  // namespace tutti::rank

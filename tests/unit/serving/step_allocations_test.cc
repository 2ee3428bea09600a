// What a step of the engine allocates while nobody joins or leaves: what it hands out, which its
// caller keeps. Of each request that gets a token: its text, its tokens, those that were chosen,
// and room in the list of requests.
#include <catch2/catch.hpp>

#include "jobs/serving/engine.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/support/counted_allocations.h"
#include "tests/unit/serving/tiny_model.h"

namespace tutti::serving {
namespace {

constexpr std::uint64_t kRequests = 3;

TEST_CASE("engine: a step that decodes allocates what it hands out, a few times a request") {
  for (const bool logprobs : {false, true}) {
    INFO("log-probabilities " << logprobs);
    kernels::ThreadPool pool(2);
    const ServedModel served = tiny_model();
    Engine engine(served.view(), {&pool}, {});
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
      Request made;
      made.id = id;
      made.prompt = "And the earth was void " + std::to_string(id);
      made.tokens_max = 60;
      made.temperature = id == 1 ? 0 : 1.2;
      made.top_p = id == 2 ? 0.9 : 1;
      made.logprobs = logprobs;
      made.ignores_end = true;
      REQUIRE(engine.submit(std::move(made)));
    }
    for (int step = 0; step < 6; ++step) REQUIRE(engine.step().size() <= kRequests);
    REQUIRE(engine.status().running == kRequests);
    for (int step = 0; step < 40; ++step) {
      const long before = test::counted_allocations() + kernels::AlignedBytes::allocations();
      const std::vector<Output> outputs = engine.step();
      const long made = test::counted_allocations() + kernels::AlignedBytes::allocations() - before;
      INFO(made << " by step " << step);
      CHECK(made <= static_cast<long>(outputs.size() * 5));
    }
    CHECK(engine.status().running == kRequests);
  }
}

}  // namespace
}  // namespace tutti::serving

#include "jobs/serving/engine.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>

#include "jobs/models/inference_pass.h"
#include "jobs/serving/scorer.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/unit/serving/tiny_model.h"

namespace tutti::serving {
namespace {

class Server {
 public:
  explicit Server(const EngineOptions& options = {})
      : served_(tiny_model()), engine_(served_.view(), {&pool_}, options) {}

  Engine& engine() { return engine_; }
  const tokenizers::Tokenizer& tokenizer() const { return *served_.tokenizer; }
  EngineModel view() const { return served_.view(); }
  kernels::OpContext context() { return {&pool_}; }

  // Steps until nothing is left; the whole answer of each request.
  std::map<std::uint64_t, Output> run() {
    std::map<std::uint64_t, Output> whole;
    while (!engine_.idle()) step(whole);
    return whole;
  }
  void step(std::map<std::uint64_t, Output>& whole) {
    for (Output& output : engine_.step()) {
      Output& sum = whole[output.id];
      REQUIRE(sum.finish == Finish::none);  // nothing comes after the end
      sum.text += output.text;
      sum.tokens.insert(sum.tokens.end(), output.tokens.begin(), output.tokens.end());
      sum.chosen.insert(sum.chosen.end(), output.chosen.begin(), output.chosen.end());
      sum.finish = output.finish;
      sum.prompt_tokens = output.prompt_tokens;
      sum.completion_tokens = output.completion_tokens;
    }
  }
  Output answer(Request request) {
    const std::uint64_t id = request.id;
    const auto submitted = engine_.submit(std::move(request));
    if (!submitted) FAIL(submitted.error().message);
    return run().at(id);
  }

 private:
  kernels::ThreadPool pool_{2};
  ServedModel served_;
  Engine engine_;
};

Request request(std::uint64_t id, std::string prompt, std::uint32_t tokens_max = 12) {
  Request made;
  made.id = id;
  made.prompt = std::move(prompt);
  made.tokens_max = tokens_max;
  made.seed = 100 + id;
  made.ignores_end = true;
  return made;
}

TEST_CASE("engine: a request's tokens are the same alone and in company") {
  std::vector<Request> requests;
  for (std::uint64_t id = 1; id <= 9; ++id) {
    std::string prompt = "And the earth";
    for (std::uint64_t i = 0; i < id * 3; ++i) prompt += " was void " + std::to_string(i);
    requests.push_back(request(id, prompt.substr(0, 20 + id * 9), 5 + static_cast<unsigned>(id)));
    requests.back().temperature = id % 3 == 0 ? 0 : 1.2;
    requests.back().top_k = id % 2 == 0 ? 20 : 0;
    requests.back().top_p = id % 4 == 0 ? 0.9 : 1;
    requests.back().logprobs = true;
  }
  std::map<std::uint64_t, Output> alone;
  for (const Request& each : requests) alone[each.id] = Server().answer(each);
  // Few places, small steps: prompts come in chunks, requests join while others decode; then large
  // steps that others' pauses cut short.
  const EngineOptions small{.batch_max = 4, .step_tokens = 7};
  const EngineOptions cut{.batch_max = 4, .step_tokens = 64, .prompt_pause = Duration(1)};
  for (const EngineOptions& options : {small, cut}) {
    Server server(options);
    std::map<std::uint64_t, Output> together;
    for (const Request& each : requests) {
      REQUIRE(server.engine().submit(each));
      if (each.id % 2 == 0) server.step(together);
    }
    CHECK(server.engine().status().running == 4);
    while (!server.engine().idle()) server.step(together);
    for (const Request& each : requests) {
      INFO("request " << each.id);
      CHECK(together[each.id].tokens == alone[each.id].tokens);
      CHECK(together[each.id].text == alone[each.id].text);
      CHECK(together[each.id].chosen == alone[each.id].chosen);
      CHECK(together[each.id].tokens.size() == each.tokens_max);
      CHECK(together[each.id].finish == Finish::length);
    }
  }
}

TEST_CASE("engine: after the first steps decoding takes no memory for tensors or scratch") {
  Server server;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    Request made = request(id, "And the earth was void " + std::to_string(id), 60);
    made.temperature = id == 1 ? 0 : 1.2;
    made.top_p = id == 2 ? 0.9 : 1;
    made.logprobs = id == 3;
    REQUIRE(server.engine().submit(std::move(made)));
  }
  std::map<std::uint64_t, Output> whole;
  // Prompts, and the first token of each.
  for (int step = 0; step < 4; ++step) server.step(whole);
  REQUIRE(server.engine().status().running == 3);
  const long before = kernels::AlignedBytes::allocations();
  for (int step = 0; step < 40; ++step) server.step(whole);
  CHECK(server.engine().status().running == 3);
  CHECK(kernels::AlignedBytes::allocations() == before);
  CHECK(whole[1].tokens.size() >= 40);
}

TEST_CASE("engine: greedy takes the most probable token, and log-probabilities are the scorer's") {
  Server server;
  Request asked = request(1, "the face of", 6);
  asked.temperature = 0;
  asked.logprobs = true;
  asked.echo = true;
  const Output answer = server.answer(asked);
  const auto prompt = server.tokenizer().encode("the face of");
  REQUIRE(answer.tokens.size() == prompt.size() + 6);
  CHECK(answer.prompt_tokens == prompt.size());
  CHECK(answer.completion_tokens == 6);
  CHECK(answer.text.starts_with("the face of"));
  const std::vector<std::int32_t> tokens(answer.tokens.begin(), answer.tokens.end());
  const auto scores = score_tokens(server.view(), server.context(), tokens, 0);
  REQUIRE(scores);
  REQUIRE(answer.chosen.size() == tokens.size());
  CHECK(answer.chosen[0].logprob == 0);
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    CHECK(answer.chosen[i].logprob == (*scores)[i - 1]);  // the same bits
  }
  // Only the prompt, scored: nothing is drawn.
  asked.id = 2;
  asked.tokens_max = 0;
  const Output echoed = server.answer(asked);
  CHECK(echoed.text == "the face of");
  CHECK(echoed.finish == Finish::length);
  CHECK(echoed.chosen ==
        std::vector(answer.chosen.begin(),
                    answer.chosen.begin() + static_cast<std::ptrdiff_t>(prompt.size())));
}

TEST_CASE("engine: a prompt that begins like a kept one reuses its cache, with the same bits") {
  const std::string shared = "In the beginning God created the heaven and the earth. And the";
  Server fresh;
  const Output expected = fresh.answer(request(2, shared + " void", 8));
  CHECK(fresh.engine().status().reused_tokens == 0);
  Server server;
  server.answer(request(1, shared + " deep. And", 8));
  const Output reused = server.answer(request(2, shared + " void", 8));
  CHECK(server.engine().status().reused_tokens >= server.tokenizer().encode(shared).size() - 1);
  CHECK(reused.tokens == expected.tokens);
}

TEST_CASE("engine: an answer ends at a stop text, an end-of-text token, its length, a cancel") {
  Server server;
  const Output plain = server.answer(request(1, "void", 40));
  CHECK(plain.finish == Finish::length);
  // Fresh weights write broken characters too; a stop text is made of whole ones.
  const auto ascii = [](char c) { return (c & 0x80) == 0; };
  std::size_t at = 0;
  while (!std::all_of(plain.text.begin() + static_cast<std::ptrdiff_t>(at),
                      plain.text.begin() + static_cast<std::ptrdiff_t>(at + 4), ascii)) {
    REQUIRE(++at + 4 < plain.text.size());
  }
  Request stopped = request(2, "void", 40);
  stopped.seed = 101;  // that of request 1
  stopped.stop = {plain.text.substr(at, 4)};
  const Output cut = server.answer(stopped);
  CHECK(cut.finish == Finish::stop);
  CHECK(cut.text == plain.text.substr(0, plain.text.find(stopped.stop[0])));

  REQUIRE(server.engine().submit(request(3, "void", 100)));
  REQUIRE(server.engine().submit(request(4, "deep", 3)));
  std::map<std::uint64_t, Output> outputs;
  server.step(outputs);
  server.engine().cancel(3);
  server.engine().cancel(77);
  while (!server.engine().idle()) server.step(outputs);
  CHECK(outputs[3].finish == Finish::cancelled);
  CHECK(outputs[3].tokens.size() < 5);
  CHECK(outputs[4].finish == Finish::length);
}

TEST_CASE("engine: an end-of-text token ends an answer and is no part of its text") {
  const ServedModel served = tiny_model();
  models::DecoderDescription description = tiny_description();
  Server reference;
  const Output plain = reference.answer(request(1, "void", 10));
  description.end_tokens = {static_cast<std::int64_t>(plain.tokens[4])};
  const auto decoder = models::Decoder::create(description);
  REQUIRE(decoder);
  kernels::ThreadPool pool(1);
  Engine engine({&*decoder, &served.images, &*served.tokenizer}, {&pool}, {});
  Request asked = request(1, "void", 10);
  asked.ignores_end = false;
  REQUIRE(engine.submit(asked));
  Output whole;
  while (!engine.idle()) {
    for (const Output& output : engine.step()) {
      whole.tokens.insert(whole.tokens.end(), output.tokens.begin(), output.tokens.end());
      whole.text += output.text;
      whole.finish = output.finish;
    }
  }
  CHECK(whole.finish == Finish::stop);
  const auto first = std::find(plain.tokens.begin(), plain.tokens.end(), plain.tokens[4]);
  CHECK(whole.tokens == std::vector(plain.tokens.begin(), first + 1));
  CHECK(plain.text.starts_with(whole.text));
}

TEST_CASE("engine: a request that cannot be served is refused alone") {
  Server server({.batch_max = 1, .queue_max = 2});
  const auto error_of = [&](const Request& asked) {
    const auto submitted = server.engine().submit(asked);
    REQUIRE_FALSE(submitted);
    return submitted.error();
  };
  Request bad = request(1, "void", kTinyContext);
  CHECK(error_of(bad).message.find("more than the context of 200") != std::string::npos);
  bad = request(1, "void");
  bad.tokens = {1, 288};
  CHECK(error_of(bad).message.find("token 288 at position 1") != std::string::npos);
  bad = request(1, "void");
  bad.temperature = -1;
  CHECK(error_of(bad).message.find("temperature") != std::string::npos);
  bad = request(1, "void");
  bad.top_p = 0;
  CHECK(error_of(bad).code == ErrorCode::invalid_argument);
  bad = request(1, "void");
  bad.stop = {""};
  CHECK(error_of(bad).code == ErrorCode::invalid_argument);

  REQUIRE(server.engine().submit(request(1, "void")));
  CHECK(error_of(request(1, "deep")).code == ErrorCode::already_exists);
  REQUIRE(server.engine().submit(request(2, "deep")));
  CHECK(error_of(request(3, "form")).code == ErrorCode::exhausted);
  const auto answers = server.run();
  CHECK(answers.size() == 2);
  CHECK(answers.at(1).finish == Finish::length);
  CHECK(answers.at(2).finish == Finish::length);
}

TEST_CASE("engine: requests wait for cache memory, and one that can never have it is refused") {
  const std::uint64_t page = models::KvCache::bytes(tiny_description(), 1);
  Server server({.cache_bytes_max = 2 * page});  // of 64 tokens each
  for (std::uint64_t id = 1; id <= 5; ++id) REQUIRE(server.engine().submit(request(id, "void", 8)));
  const auto refused = server.engine().submit(request(6, "void", 140));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("cache memory") != std::string::npos);
  std::map<std::uint64_t, Output> answers;
  server.step(answers);
  CHECK(server.engine().status().running == 2);
  while (!server.engine().idle()) {
    CHECK(server.engine().status().cache_bytes <= 2 * page);
    server.step(answers);
  }
  CHECK(answers.size() == 5);
  // The same prompt at any time gives the tokens that its seed gives.
  Request first = request(1, "void", 8);
  CHECK(answers[1].tokens == server.answer(first).tokens);
}

TEST_CASE("engine: an answer that is to be as long as fits ends with the context") {
  Server server({.context = 40});
  Request asked = request(1, "void", 1000);
  CHECK(server.engine().submit(asked).error().code == ErrorCode::invalid_argument);
  asked.tokens_as_fit = true;
  const Output answer = server.answer(asked);
  CHECK(answer.finish == Finish::length);
  CHECK(answer.prompt_tokens + answer.completion_tokens == 40);
}

TEST_CASE("scorer: windows of a long text agree with the text's beginning and each other") {
  Server server;
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 330; ++i) tokens.push_back((i * 37 + i / 7) % 288);
  const auto whole = score_tokens(server.view(), server.context(), tokens, 0);
  REQUIRE(whole);
  CHECK(whole->size() == 329);
  // The first window is the beginning alone; the second begins at token 100.
  const auto first = score_tokens(server.view(), server.context(),
                                  std::span<const std::int32_t>(tokens).first(201), 0);
  const auto second = score_tokens(server.view(), server.context(),
                                   std::span<const std::int32_t>(tokens).subspan(100, 201), 0);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(std::equal(first->begin(), first->end(), whole->begin()));
  CHECK(std::equal(second->begin() + 100, second->end(), whole->begin() + 200));
  CHECK(score_tokens(server.view(), server.context(), {}, 0).error().code ==
        ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace tutti::serving

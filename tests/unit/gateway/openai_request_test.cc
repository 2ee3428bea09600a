#include "coordinator/gateway/openai_request.h"

#include <catch2/catch.hpp>

namespace tutti::gateway {
namespace {

OpenAiRequest accepted(const Parsed& parsed) {
  if (const auto* refusal = std::get_if<Refusal>(&parsed)) FAIL(refusal->message);
  return std::get<OpenAiRequest>(parsed);
}

Refusal refused(const Parsed& parsed) {
  REQUIRE(std::holds_alternative<Refusal>(parsed));
  return std::get<Refusal>(parsed);
}

TEST_CASE("completion request: what is left out has OpenAI's defaults") {
  const auto request = accepted(parse_completion(R"({"model": "kjv", "prompt": "In"})", 5));
  CHECK(request.model == "kjv");
  CHECK_FALSE(request.stream);
  REQUIRE(request.prompts.size() == 1);
  wire::Generate expected;
  expected.prompt = "In";
  expected.seed = 5;
  CHECK(request.prompts[0] == expected);
}

TEST_CASE("completion request: every field is heard") {
  const auto request = accepted(parse_completion(R"({"model": "kjv", "prompt": [1, 2, 3],
      "max_tokens": 40, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": -1,
      "stop": ["a", "b"], "echo": true, "logprobs": 1, "n": 1, "stream": true, "user": "u",
      "presence_penalty": 0.0, "logit_bias": {}, "suffix": null,
      "stream_options": {"include_usage": true}})",
                                                 5));
  CHECK(request.stream);
  CHECK(request.include_usage);
  CHECK(request.best_logprobs);
  REQUIRE(request.prompts.size() == 1);
  wire::Generate expected;
  expected.tokens = {1, 2, 3};
  expected.tokens_max = 40;
  expected.temperature = 0.5;
  expected.top_p = 0.9;
  expected.top_k = 20;
  expected.seed = ~std::uint64_t{0};
  expected.stop = {"a", "b"};
  expected.echo = true;
  expected.logprobs = 1;
  CHECK(request.prompts[0] == expected);
}

TEST_CASE("completion request: a prompt is a text, token ids, or a list of such") {
  const auto prompts = [](const std::string& prompt) {
    return accepted(parse_completion(R"({"model": "m", "prompt": )" + prompt + "}", 0)).prompts;
  };
  CHECK(prompts(R"(["a\u0000b"])")[0].prompt == std::string("a\0b", 3));
  CHECK(prompts(R"(["a", "b"])").size() == 2);
  CHECK(prompts(R"([[7, 8], [9]])")[1].tokens == std::vector<std::uint32_t>{9});
  CHECK(prompts(R"("")")[0].prompt.empty());
}

TEST_CASE("completion request: what is wrong is refused by its name") {
  struct Case {
    std::string fields;
    std::string param;
  };
  const auto wrong =
      GENERATE(Case{R"("prompt": "x")", "model"}, Case{R"("model": 5, "prompt": "x")", "model"},
               Case{R"("model": "m")", "prompt"}, Case{R"("model": "m", "prompt": [])", "prompt"},
               Case{R"("model": "m", "prompt": [[]])", "prompt"},
               Case{R"("model": "m", "prompt": [1, -2])", "prompt"},
               Case{R"("model": "m", "prompt": ["a", 1])", "prompt"},
               Case{R"("model": "m", "prompt": ["a", "b"], "stream": true)", "prompt"},
               Case{R"("model": "m", "prompt": "x", "max_tokens": -1)", "max_tokens"},
               Case{R"("model": "m", "prompt": "x", "max_tokens": 1.5)", "max_tokens"},
               Case{R"("model": "m", "prompt": "x", "temperature": -0.1)", "temperature"},
               Case{R"("model": "m", "prompt": "x", "temperature": "hot")", "temperature"},
               Case{R"("model": "m", "prompt": "x", "top_p": 0)", "top_p"},
               Case{R"("model": "m", "prompt": "x", "top_p": 1.1)", "top_p"},
               Case{R"("model": "m", "prompt": "x", "top_k": -1)", "top_k"},
               Case{R"("model": "m", "prompt": "x", "seed": 0.5)", "seed"},
               Case{R"("model": "m", "prompt": "x", "stop": "")", "stop"},
               Case{R"("model": "m", "prompt": "x", "stop": [1])", "stop"},
               Case{R"("model": "m", "prompt": "x", "n": 2)", "n"},
               Case{R"("model": "m", "prompt": "x", "best_of": 3)", "best_of"},
               Case{R"("model": "m", "prompt": "x", "presence_penalty": 0.5)", "presence_penalty"},
               Case{R"("model": "m", "prompt": "x", "logit_bias": {"5": 1})", "logit_bias"},
               Case{R"("model": "m", "prompt": "x", "suffix": "y")", "suffix"},
               Case{R"("model": "m", "prompt": "x", "logprobs": 5)", "logprobs"},
               Case{R"("model": "m", "prompt": "x", "echo": 1)", "echo"},
               Case{R"("model": "m", "prompt": "x", "stream": "yes")", "stream"},
               Case{R"("model": "m", "prompt": "x", "stream_options": {})", "stream_options"});
  INFO(wrong.fields);
  const Refusal refusal = refused(parse_completion("{" + wrong.fields + "}", 0));
  CHECK(refusal.status == 400);
  CHECK(refusal.param == wrong.param);
  CHECK(refusal.message.starts_with(wrong.param));
  CHECK(refusal.type == "invalid_request_error");
}

TEST_CASE("completion request: what is not a JSON object is refused") {
  for (const char* body : {"", "{", "[]", "5", "{\"model\": \"\xff\"}", "{\"a\": \"\\ud800\"}"}) {
    INFO(body);
    CHECK(refused(parse_completion(body, 0)).code == "invalid_json");
    CHECK(refused(parse_chat(body, 0)).code == "invalid_json");
  }
}

TEST_CASE("chat request: messages become text under their roles, up to the user's turn") {
  const auto request = accepted(parse_chat(R"({"model": "kjv", "messages": [
      {"role": "system", "content": "Be short."},
      {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "?"}]}
      ], "stop": "\n\n"})",
                                           3));
  REQUIRE(request.prompts.size() == 1);
  const wire::Generate& generate = request.prompts[0];
  CHECK(generate.prompt == "system: Be short.\nuser: Who?\nassistant:");
  CHECK(generate.stop == std::vector<std::string>{"\n\n", "\nuser:"});
  CHECK(generate.tokens_max == kChatTokensDefault);
  CHECK(generate.tokens_as_fit);
  CHECK(generate.seed == 3);
}

TEST_CASE("chat request: limits and log-probabilities under the names of both dialects") {
  const std::string messages = R"("model": "m", "messages": [{"role": "user", "content": "x"}])";
  const auto fields = [&](const std::string& more) {
    return accepted(parse_chat("{" + messages + ", " + more + "}", 0));
  };
  CHECK(fields(R"("max_tokens": 9)").prompts[0].tokens_max == 9);
  CHECK(fields(R"("max_completion_tokens": 8)").prompts[0].tokens_max == 8);
  CHECK_FALSE(fields(R"("max_tokens": 9)").prompts[0].tokens_as_fit);
  CHECK(fields(R"("logprobs": true)").prompts[0].logprobs == 1);
  CHECK(fields(R"("logprobs": false)").prompts[0].logprobs == 0);
  CHECK(fields(R"("logprobs": true, "top_logprobs": 1)").best_logprobs);
  const auto param = [&](const std::string& more) {
    return refused(parse_chat("{" + messages + ", " + more + "}", 0)).param;
  };
  CHECK(param(R"("top_logprobs": 1)") == "top_logprobs");
  CHECK(param(R"("tools": [{}])") == "tools");
  CHECK(param(R"("response_format": {"type": "json_object"})") == "response_format");
}

TEST_CASE("chat request: messages that are none are refused") {
  for (const char* messages : {"null", "[]", "5", "[5]", R"([{"role": "user"}])",
                               R"([{"content": "x"}])", R"([{"role": "tool", "content": "x"}])",
                               R"([{"role": "user", "content": [{"type": "image_url"}]}])"}) {
    INFO(messages);
    const std::string body = R"({"model": "m", "messages": )" + std::string(messages) + "}";
    CHECK(refused(parse_chat(body, 0)).param == "messages");
  }
}

TEST_CASE("refusals: errors have the status and code that OpenAI's clients decide by") {
  CHECK(refusal_of({ErrorCode::invalid_argument, "x"}).status == 400);
  CHECK(refusal_of({ErrorCode::not_found, "x"}).status == 404);
  CHECK(refusal_of({ErrorCode::not_found, "x"}).code == "model_not_found");
  CHECK(refusal_of({ErrorCode::exhausted, "x"}).status == 429);
  CHECK(refusal_of({ErrorCode::exhausted, "x"}).type == "rate_limit_error");
  CHECK(refusal_of({ErrorCode::unavailable, "x"}).status == 503);
  CHECK(refusal_of({ErrorCode::deadline_exceeded, "x"}).status == 504);
  CHECK(refusal_of({ErrorCode::internal, "x"}).status == 500);
}

}  // namespace
}  // namespace tutti::gateway

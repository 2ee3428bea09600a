#include "coordinator/gateway/openai_answer.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <catch2/catch.hpp>

namespace tutti::gateway {
namespace {

namespace json = boost::json;

wire::Generated piece(std::string text, std::string finish = {}) {
  wire::Generated out;
  out.text = std::move(text);
  out.finish = std::move(finish);
  if (!out.finish.empty()) {
    out.prompt_tokens = 3;
    out.completion_tokens = 2;
  }
  return out;
}

AnswerHead head(Dialect dialect) {
  OpenAiRequest request;
  request.dialect = dialect;
  request.model = "kjv";
  request.prompts.emplace_back();
  return head_of(request, "1f", 1'700'000'000);
}

// The values of "data:" lines; [DONE] as a string.
std::vector<json::value> events(const std::string& text) {
  std::vector<json::value> out;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = text.find("\n\n", at);
    REQUIRE(end != std::string::npos);
    const std::string line = text.substr(at, end - at);
    REQUIRE(line.starts_with("data: "));
    REQUIRE(line.find('\n') == std::string::npos);
    const std::string data = line.substr(6);
    out.push_back(data == "[DONE]" ? json::value(data) : json::parse(data));
    at = end + 2;
  }
  return out;
}

TEST_CASE("answers: a whole completion has OpenAI's shape") {
  Choice choice;
  choice.add(piece("In the "));
  choice.add(piece("beginning", "length"));
  const json::value expected = json::parse(R"({"id": "cmpl-1f", "object": "text_completion",
      "created": 1700000000, "model": "kjv", "choices": [{"index": 0, "text": "In the beginning",
      "logprobs": null, "finish_reason": "length"}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})");
  CHECK(json::parse(whole_answer(head(Dialect::completion), {choice})) == expected);
}

TEST_CASE("answers: a whole chat has OpenAI's shape") {
  Choice choice;
  choice.add(piece(" God", "stop"));
  const json::value expected = json::parse(R"({"id": "chatcmpl-1f", "object": "chat.completion",
      "created": 1700000000, "model": "kjv", "choices": [{"index": 0,
      "message": {"role": "assistant", "content": " God", "refusal": null},
      "logprobs": null, "finish_reason": "stop"}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})");
  CHECK(json::parse(whole_answer(head(Dialect::chat), {choice})) == expected);
}

TEST_CASE("answers: a streamed chat begins with its role and ends with usage and [DONE]") {
  AnswerHead with_usage = head(Dialect::chat);
  with_usage.include_usage = true;
  AnswerEvents stream(with_usage);
  const auto all =
      events(stream.first() + stream.part(piece("\u00e9\n")) + stream.part(piece("", "stop")));
  REQUIRE(all.size() == 5);
  const auto choice = [&](std::size_t i) { return all[i].at("choices").at(0); };
  CHECK(choice(0).at("delta") == json::parse(R"({"role": "assistant", "content": ""})"));
  CHECK(choice(1).at("delta") == json::parse(R"({"content": "\u00e9\n"})"));
  CHECK(choice(1).at("finish_reason").is_null());
  CHECK(all[1].at("object") == "chat.completion.chunk");
  CHECK(all[1].at("usage").is_null());
  CHECK(choice(2).at("delta") == json::object());
  CHECK(choice(2).at("finish_reason") == "stop");
  CHECK(all[3].at("choices") == json::array());
  CHECK(all[3].at("usage").at("total_tokens") == 5);
  CHECK(all[4] == "[DONE]");
}

TEST_CASE("answers: a stream that fails says so and has no [DONE]") {
  const auto all = events(AnswerEvents::failure(refusal_of({ErrorCode::unavailable, "lost"})));
  REQUIRE(all.size() == 1);
  CHECK(all[0] == json::parse(R"({"error": {"message": "lost", "type": "server_error",
                                  "param": null, "code": "unavailable"}})"));
}

TEST_CASE("answers: log-probabilities know where their tokens begin, over all parts") {
  AnswerHead asked = head(Dialect::completion);
  asked.echo = true;
  asked.best_logprobs = true;
  AnswerEvents stream(asked);
  wire::Generated first = piece("a\u00e9");
  first.chosen = {{5, "a", 0}, {6, "\xc3", -0.5F}, {7, "\xa9", -0.25F}};
  wire::Generated last = piece("b", "length");
  last.chosen = {{8, "b", -1}};
  std::string text = stream.part(first);
  text += stream.part(last);
  const auto all = events(text);
  const json::value one = all.at(0).at("choices").at(0).at("logprobs");
  CHECK(one.at("tokens") == json::parse(R"(["a", "bytes:\\xc3", "bytes:\\xa9"])"));
  CHECK(one.at("token_logprobs") == json::parse("[null, -0.5, -0.25]"));
  CHECK(one.at("text_offset") == json::parse("[0, 1, 2]"));
  CHECK(one.at("top_logprobs").at(0).is_null());
  CHECK(one.at("top_logprobs").at(2) == json::parse(R"({"bytes:\\xa9": -0.25})"));
  const json::value two = all.at(1).at("choices").at(0).at("logprobs");
  CHECK(two.at("text_offset") == json::parse("[2]"));
}

TEST_CASE("answers: several prompts give several choices and one sum") {
  Choice choice;
  choice.add(piece("x", "stop"));
  const json::value answer = json::parse(whole_answer(head(Dialect::completion), {choice, choice}));
  CHECK(answer.at("choices").as_array().size() == 2);
  CHECK(answer.at("choices").at(1).at("index") == 1);
  CHECK(answer.at("usage").at("total_tokens") == 10);
}

TEST_CASE("answers: bytes that are no characters never make the JSON invalid") {
  Choice choice;
  choice.add(piece("a\xff", "stop"));
  const json::value answer = json::parse(whole_answer(head(Dialect::completion), {choice}));
  CHECK(answer.at("choices").at(0).at("text") == "a\xef\xbf\xbd");
}

TEST_CASE("answers: the list of models") {
  CHECK(json::parse(models_body({"a"})) == json::parse(R"({"object": "list",
                        "data": [{"id": "a", "object": "model", "created": 0,
                                  "owned_by": "tutti"}]})"));
}

}  // namespace
}  // namespace tutti::gateway

// Bodies of HTTP requests.
#include <variant>

#include "coordinator/gateway/openai_request.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

bool check(const gateway::Parsed& parsed) {
  if (const auto* refusal = std::get_if<gateway::Refusal>(&parsed)) {
    require(refusal->status >= 400 && refusal->status < 600, "a refusal that is no error");
    require(!refusal->message.empty(), "a refusal without a message");
    return false;
  }
  require(!std::get<gateway::OpenAiRequest>(parsed).prompts.empty(), "a request for nothing");
  return true;
}

}  // namespace

bool take_completion(std::string_view bytes) { return check(gateway::parse_completion(bytes, 1)); }
bool take_chat(std::string_view bytes) { return check(gateway::parse_chat(bytes, 1)); }

std::vector<std::string> completion_seeds() {
  return {R"({"model":"m","prompt":"a","max_tokens":5,"temperature":0.5,"stream":true})",
          R"({"model":"m","prompt":["a","b"],"logprobs":2,"stop":["x"],"seed":3,"n":1})",
          R"({"model":"m","prompt":[1,2,3],"top_p":0.9,"stream_options":{"include_usage":true}})",
          R"({"model":"m","prompt":"a","n":-1})"};
}

std::vector<std::string> chat_seeds() {
  return {R"({"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5})",
          R"({"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"a"}]}],)"
          R"("logprobs":true,"top_logprobs":2,"response_format":{"type":"text"}})",
          R"({"model":"m","messages":"hi"})"};
}

}  // namespace tutti::fuzz

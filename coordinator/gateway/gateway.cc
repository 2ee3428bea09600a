#include "coordinator/gateway/gateway.h"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/core.h>

#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/route.h"
#include "coordinator/gateway/gateway_host.h"
#include "coordinator/gateway/openai_answer.h"
#include "coordinator/gateway/openai_request.h"
#include "protocol/base/clock.h"

namespace tutti::gateway {

namespace asio = boost::asio;
using api::Answer;
using api::Call;
using Request = std::shared_ptr<OpenRequest>;

namespace {

// From one part of an answer to the next; a long prompt on a slow machine takes the longest.
constexpr Duration kPartWithin = std::chrono::seconds(120);

Answer refused(const Error& error) {
  Answer answer;
  answer.status = error.code == ErrorCode::exhausted ? 429 : api::status_of(error.code);
  answer.body = error_body(error);
  return answer;
}

enum class Usage { left_out, shown };

// The request's next part, whatever it takes; one with an error if it takes too long.
asio::awaitable<wire::Generated> next_part(Request request) {
  const auto executor = co_await asio::this_coro::executor;
  const auto timer = std::make_shared<asio::steady_timer>(executor);
  timer->expires_after(kPartWithin);
  for (;;) {
    std::optional<wire::Generated> part =
        request->next([timer, executor] { asio::post(executor, [timer] { timer->cancel(); }); });
    if (part) co_return *std::move(part);
    boost::system::error_code woken;
    co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, woken));
    if (!woken) request->fail({ErrorCode::deadline_exceeded, "the serving rank does not answer"});
  }
}

}  // namespace

struct Gateway::State : std::enable_shared_from_this<Gateway::State> {
  explicit State(actor::Runtime& runtime) : host(runtime) {}

  asio::awaitable<Result<Request>> begin(std::string model, wire::Generate generate) {
    return api::ask<Result<Request>>(
        host.host(), [this, model = std::move(model), generate = std::move(generate)]() mutable {
          return host.begin(model, std::move(generate));
        });
  }

  // The client has gone, or the answer is not wanted for another reason.
  void abandon(Request request) {
    static_cast<void>(
        host.host().tell([self = shared_from_this(), request] { self->host.abandon(request); }));
  }

  asio::awaitable<Answer> models() {
    using Models = Result<std::vector<std::string>>;
    const Models found =
        co_await api::ask<Models>(host.host(), [this] { return Models(host.models()); });
    if (!found) co_return refused(found.error());
    co_return api::json_answer(models_body(*found));
  }

  using Requests = Result<std::vector<Request>>;

  // One open request for each prompt, or none at all.
  asio::awaitable<Requests> begin_all(const OpenAiRequest& parsed) {
    std::vector<Request> requests;
    for (const wire::Generate& prompt : parsed.prompts) {
      Result<Request> begun = co_await begin(parsed.model, prompt);
      if (!begun) {
        for (const Request& request : requests) abandon(request);
        co_return begun.error();
      }
      requests.push_back(*std::move(begun));
    }
    co_return requests;
  }

  asio::awaitable<Answer> complete(Result<OpenAiRequest> parsed) {
    if (!parsed) co_return refused(parsed.error());
    const Requests requests = co_await begin_all(*parsed);
    if (!requests) co_return refused(requests.error());
    const AnswerHead head = new_answer(*parsed);
    if (!parsed->stream) co_return co_await whole(head, *requests);
    // The first part is waited for, so that a request which cannot be served has its HTTP status.
    const Request request = requests->front();
    wire::Generated first = co_await next_part(request);
    if (first.finish == "error") co_return refused(error_of(first));
    const Usage usage = parsed->include_usage ? Usage::shown : Usage::left_out;
    Answer answer;
    answer.content_type = "text/event-stream";
    answer.stream = [self = shared_from_this(), head, request, first,
                     usage](api::BodyStream& body) {
      return self->stream(head, request, first, usage, body);
    };
    co_return answer;
  }

  asio::awaitable<Answer> whole(AnswerHead head, std::vector<Request> requests) {
    std::vector<Choice> choices;
    for (const Request& request : requests) {
      Choice choice;
      while (choice.finish.empty()) {
        const wire::Generated part = co_await next_part(request);
        if (part.finish == "error") {
          for (const Request& other : requests) abandon(other);
          co_return refused(error_of(part));
        }
        choice.add(part);
      }
      choices.push_back(std::move(choice));
    }
    co_return api::json_answer(whole_answer(head, choices));
  }

  asio::awaitable<void> stream(AnswerHead head, Request request, wire::Generated part, Usage usage,
                               api::BodyStream& body) {
    std::string events = first_event(head);
    for (;;) {
      if (part.finish == "error") {
        events += error_event(error_of(part));
      } else {
        events += part_event(head, part);
        if (!part.finish.empty() && usage == Usage::shown) events += usage_event(head, part);
      }
      if (!part.finish.empty()) events += kStreamEnd;
      const bool written = co_await body.write(std::move(events));
      if (!written) abandon(request);
      if (!written || !part.finish.empty()) co_return;
      events.clear();
      part = co_await next_part(request);
    }
  }

  GatewayHost host;
};

Gateway::Gateway(actor::Runtime& runtime) : state_(std::make_shared<State>(runtime)) {}
Gateway::~Gateway() = default;

void Gateway::open(const Serving& serving) {
  static_cast<void>(
      state_->host.host().tell([state = state_, serving] { state->host.open(serving); }));
}

void Gateway::close(JobId job) {
  static_cast<void>(state_->host.host().tell([state = state_, job] { state->host.close(job); }));
}

std::vector<api::Route> Gateway::routes() {
  const auto state = state_;
  return {
      {"GET", "/v1/models", api::Role::viewer, [state](const Call&) { return state->models(); }},
      {"POST", "/v1/completions", api::Role::user,
       [state](const Call& call) { return state->complete(parse_completion(call.body)); }},
      {"POST", "/v1/chat/completions", api::Role::user,
       [state](const Call& call) { return state->complete(parse_chat(call.body)); }},
  };
}

std::string Gateway::metrics() const {
  const GatewayCounters& counters = state_->host.counters();
  std::string out;
  const auto put = [&](std::string_view name, std::uint64_t value) {
    out += fmt::format("# TYPE {0} counter\n{0} {1}\n", name, value);
  };
  put("tutti_gateway_requests_total", counters.requests);
  put("tutti_gateway_requests_finished_total", counters.finished);
  put("tutti_gateway_requests_failed_total", counters.failed);
  put("tutti_gateway_prompt_tokens_total", counters.prompt_tokens);
  put("tutti_gateway_completion_tokens_total", counters.completion_tokens);
  return out;
}

}  // namespace tutti::gateway

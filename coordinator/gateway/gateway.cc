#include "coordinator/gateway/gateway.h"

#include <fmt/core.h>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>

#include <optional>
#include <random>

#include "coordinator/api/ask.h"
#include "coordinator/api/route.h"
#include "coordinator/gateway/gateway_host.h"
#include "coordinator/gateway/openai_answer.h"
#include "coordinator/gateway/openai_request.h"
#include "protocol/base/clock.h"
#include "protocol/base/secret.h"

namespace tutti::gateway {

namespace asio = boost::asio;
using api::Answer;
using api::Call;

namespace {

// How often it is looked whether a client that waits is still there.
constexpr Duration kLookEvery = std::chrono::milliseconds(200);

Answer refused(const Refusal& refusal) {
  Answer answer;
  answer.status = refusal.status;
  answer.body = refusal_body(refusal);
  return answer;
}

std::uint64_t fresh_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

}  // namespace

struct Gateway::State : std::enable_shared_from_this<Gateway::State> {
  explicit State(actor::Runtime& runtime) : host(runtime, GatewaySettings{}) {}

  GatewayHost host;
};

namespace {

using SharedState = std::shared_ptr<Gateway::State>;

// The client's end of an open request. If it goes before the last part, so does the request.
class Reader {
 public:
  Reader(SharedState state, GatewayHost::Begun request, std::function<bool()> gone)
      : state_(std::move(state)), request_(std::move(request)), gone_(std::move(gone)) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    if (ended_) return;
    static_cast<void>(
        state_->host.host().tell([state = state_, id = request_->id()] { state->host.leave(id); }));
  }

  // The next part, whatever it takes: the gateway has a deadline for it. An error also if the
  // client is gone.
  asio::awaitable<OpenRequest::Part> next() {
    const auto executor = co_await asio::this_coro::executor;
    const auto timer = std::make_shared<asio::steady_timer>(executor);
    for (;;) {
      std::optional<OpenRequest::Part> part =
          request_->next([timer, executor] { asio::post(executor, [timer] { timer->cancel(); }); });
      if (part) {
        const auto* generated = std::get_if<wire::Generated>(&*part);
        ended_ = generated == nullptr || !generated->finish.empty();
        co_return *std::move(part);
      }
      if (gone_ && gone_()) co_return Error{ErrorCode::aborted, "the client is gone"};
      boost::system::error_code ignored;
      timer->expires_after(kLookEvery);
      co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
  }

 private:
  const SharedState state_;
  const GatewayHost::Begun request_;
  const std::function<bool()> gone_;
  bool ended_ = false;
};

using SharedReader = std::shared_ptr<Reader>;

using Readers = Result<std::vector<SharedReader>>;

asio::awaitable<Readers> begin(const SharedState& state, const OpenAiRequest& request,
                               const std::function<bool()>& gone) {
  std::vector<SharedReader> readers;
  for (const wire::Generate& prompt : request.prompts) {
    using Begun = Result<GatewayHost::Begun>;
    auto begin_one = [state, model = request.model, prompt] {
      return Begun(state->host.begin(model, prompt));
    };
    Begun begun = co_await api::ask<Begun>(state->host.host(), begin_one);
    if (!begun) co_return begun.error();
    readers.push_back(std::make_shared<Reader>(state, *std::move(begun), gone));
  }
  co_return readers;
}

asio::awaitable<Answer> whole(const AnswerHead& head, const std::vector<SharedReader>& readers) {
  std::vector<Choice> choices;
  for (const SharedReader& reader : readers) {
    Choice choice;
    while (choice.finish.empty()) {
      const OpenRequest::Part part = co_await reader->next();
      if (const Error* error = std::get_if<Error>(&part)) co_return refused(refusal_of(*error));
      choice.add(std::get<wire::Generated>(part));
    }
    choices.push_back(std::move(choice));
  }
  co_return api::json_answer(whole_answer(head, choices));
}

asio::awaitable<void> stream(AnswerHead head, SharedReader reader, wire::Generated first,
                             api::BodyStream& body) {
  AnswerEvents events(std::move(head));
  std::string text = events.first() + events.part(first);
  bool last = !first.finish.empty();
  while (co_await body.write(std::move(text)) && !last) {
    const OpenRequest::Part part = co_await reader->next();
    if (const Error* error = std::get_if<Error>(&part)) {
      text = AnswerEvents::failure(refusal_of(*error));
      last = true;
    } else {
      text = events.part(std::get<wire::Generated>(part));
      last = !std::get<wire::Generated>(part).finish.empty();
    }
  }
}

asio::awaitable<Answer> complete(SharedState state, Parsed parsed, std::function<bool()> gone) {
  if (const auto* refusal = std::get_if<Refusal>(&parsed)) co_return refused(*refusal);
  const auto& request = std::get<OpenAiRequest>(parsed);
  const Readers readers = co_await begin(state, request, gone);
  if (!readers) co_return refused(refusal_of(readers.error()));
  const AnswerHead head = head_of(request, random_hex(12), wall_now().unix_ms / 1000);
  if (!request.stream) co_return co_await whole(head, *readers);
  // The first part is waited for, so that a request which cannot be served has its HTTP status.
  const SharedReader reader = readers->front();
  const OpenRequest::Part first = co_await reader->next();
  if (const Error* error = std::get_if<Error>(&first)) co_return refused(refusal_of(*error));
  Answer answer;
  answer.content_type = "text/event-stream";
  answer.stream = [head, reader, part = std::get<wire::Generated>(first)](api::BodyStream& body) {
    return stream(head, reader, part, body);
  };
  co_return answer;
}

asio::awaitable<Answer> list_models(SharedState state) {
  using Models = Result<std::vector<std::string>>;
  auto list = [state] { return Models(state->host.models()); };
  const Models found = co_await api::ask<Models>(state->host.host(), list);
  if (!found) co_return refused(refusal_of(found.error()));
  co_return api::json_answer(models_body(*found));
}

}  // namespace

Gateway::Gateway(actor::Runtime& runtime) : state_(std::make_shared<State>(runtime)) {}

// Coroutines of requests that were cut short may keep the state for longer.
Gateway::~Gateway() { state_->host.shut(); }

void Gateway::open(const Serving& serving) {
  static_cast<void>(state_->host.host().tell([state = state_, serving] {
    state->host.open({serving.job, serving.model, serving.endpoint, serving.key});
  }));
}

void Gateway::close(JobId job) {
  static_cast<void>(state_->host.host().tell([state = state_, job] { state->host.close(job); }));
}

std::vector<api::Route> Gateway::routes() {
  const auto state = state_;
  return {
      {"GET", "/v1/models", api::Role::viewer, [state](const Call&) { return list_models(state); }},
      {"POST", "/v1/completions", api::Role::user,
       [state](const Call& call) {
         return complete(state, parse_completion(call.body, fresh_seed()), call.gone);
       }},
      {"POST", "/v1/chat/completions", api::Role::user,
       [state](const Call& call) {
         return complete(state, parse_chat(call.body, fresh_seed()), call.gone);
       }},
  };
}

std::string Gateway::metrics() const {
  const GatewayMetrics metrics = state_->host.metrics();
  const GatewayCounters& counters = metrics.counters;
  std::string out;
  const auto put = [&](std::string_view name, std::string_view type, std::uint64_t value) {
    out += fmt::format("# TYPE {0} {1}\n{0} {2}\n", name, type, value);
  };
  put("tutti_gateway_requests_total", "counter", counters.started);
  put("tutti_gateway_requests_finished_total", "counter", counters.finished);
  put("tutti_gateway_requests_failed_total", "counter", counters.failed);
  put("tutti_gateway_requests_cancelled_total", "counter", counters.cancelled);
  put("tutti_gateway_prompt_tokens_total", "counter", counters.prompt_tokens);
  put("tutti_gateway_completion_tokens_total", "counter", counters.completion_tokens);
  put("tutti_gateway_open_requests", "gauge", metrics.open_requests);
  put("tutti_gateway_links", "gauge", metrics.links);
  return out;
}

}  // namespace tutti::gateway

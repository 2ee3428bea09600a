#include "ops/cli/client/connection.h"

#include "coordinator/api/http_client.h"

namespace tutti::cli {

namespace {

class RealHttp final : public Http {
 public:
  Result<HttpReply> send(const ClusterAddress& to, const HttpRequest& request) override {
    const Result<api::HttpClient*> client = client_of(to);
    if (!client) return client.error();
    Result<api::HttpAnswer> answer = (*client)->request(translate(request));
    if (!answer) return answer.error();
    return HttpReply{answer->status, std::move(answer->body)};
  }

  Result<HttpReply> stream(const ClusterAddress& to, const HttpRequest& request,
                           const std::function<void(std::string_view)>& on_bytes) override {
    const Result<api::HttpClient*> client = client_of(to);
    if (!client) return client.error();
    api::HttpRequest translated = translate(request);
    translated.accept = "text/event-stream";
    Result<api::HttpAnswer> answer = (*client)->stream(translated, [&](std::string_view part) {
      on_bytes(part);
      return true;
    });
    if (!answer) return answer.error();
    return HttpReply{answer->status, std::move(answer->body)};
  }

 private:
  static api::HttpRequest translate(const HttpRequest& request) {
    return {.method = request.method,
            .target = request.target,
            .body = request.body,
            .deadline = request.timeout};
  }

  // The connection is kept while the address stays the same.
  Result<api::HttpClient*> client_of(const ClusterAddress& to) {
    if (client_ == nullptr || to.url != at_.url || to.token != at_.token) {
      Result<std::unique_ptr<api::HttpClient>> made =
          api::HttpClient::connect_to({.url = to.url, .token = to.token});
      if (!made) return made.error();
      client_ = *std::move(made);
      at_ = to;
    }
    return client_.get();
  }

  std::unique_ptr<api::HttpClient> client_;
  ClusterAddress at_;
};

}  // namespace

Connection::Connection() : http_(std::make_unique<RealHttp>()), api_(*http_) {}
Connection::~Connection() = default;

}  // namespace tutti::cli

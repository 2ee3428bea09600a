// A coordinator in this process, on a state folder of its own, with a client for its API.
#pragma once

#include <catch2/catch.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "coordinator/api/http_client.h"
#include "coordinator/coordinator_service.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::test {

class RunningCoordinator {
 public:
  explicit RunningCoordinator(const std::filesystem::path& state, std::uint32_t lease_ms = 5'000,
                              std::uint16_t control_port = 0)
      : state_(state) {
    spec::CoordinatorConfig config;
    config.control_port = control_port;
    config.state = state.string();
    config.lease_ms = lease_ms;
    auto opened = coordinator::CoordinatorService::open(config);
    REQUIRE(opened.ok());
    service_ = *std::move(opened);
    thread_ = std::thread([this] { exit_code_ = service_->run(); });
  }
  RunningCoordinator(const RunningCoordinator&) = delete;
  RunningCoordinator& operator=(const RunningCoordinator&) = delete;
  ~RunningCoordinator() { end(); }

  int end() {
    if (thread_.joinable()) {
      service_->end();
      thread_.join();
    }
    return exit_code_;
  }

  std::string url() const { return service_->url(); }
  std::vector<std::string> routes() const { return service_->routes(); }
  std::string token() const { return line_of("token"); }
  std::string line_of(const std::string& file) const {
    std::string text = *read_file(state_ / file);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }

  // Method and target, perhaps with a body; the answer must come.
  api::HttpAnswer ask(const std::string& method, const std::string& target,
                      const std::string& body = "") {
    if (!client_) client_ = *api::HttpClient::connect_to({.url = url(), .token = token()});
    auto answer = client_->request({.method = method, .target = target, .body = body});
    REQUIRE(answer.ok());
    return *answer;
  }

 private:
  std::filesystem::path state_;
  std::unique_ptr<coordinator::CoordinatorService> service_;
  std::thread thread_;
  std::unique_ptr<api::HttpClient> client_;
  int exit_code_ = -1;
};

}  // namespace tutti::test

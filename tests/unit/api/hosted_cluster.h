// A ClusterHost without the HTTP server around it, on a ledger of at most kHostedPages.
#pragma once

#include <catch2/catch.hpp>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "coordinator/cluster_host.h"
#include "protocol/spec/parse.h"
#include "tests/support/patience.h"
#include "tests/support/temporary_folder.h"

namespace tutti::test {

inline constexpr std::uint32_t kHostedPages = 100;

class Hosted {
 public:
  explicit Hosted(coordinator::ClusterHostOptions options = {},
                  coordinator::ClusterSettings settings = {}) {
    coordinator::ClusterHostLinks links;
    links.stores = &stores;
    links.notices = &notices;
    links.access = &access;
    links.open_serving = [](const coordinator::OpenServing&) {};
    links.close_serving = [](const coordinator::CloseServing&) {};
    links.on_fatal = [](const Error&) {};
    cluster = std::make_unique<coordinator::ClusterHost>(runtime, std::move(links));
    options.host = "127.0.0.1";
    options.keys = transport::make_keys();
    settings.job_folders = (folder.path() / "jobs").string();
    settings.join_token = "join";
    auto opened = coordinator::Ledger::open({.folder = folder.path(), .pages_max = kHostedPages});
    REQUIRE(opened.ok());
    ledger = opened->get();
    REQUIRE(cluster->open(options, settings, *std::move(opened)).ok());
    join = "{\"endpoint\": \"" + cluster->control_address() + "\", \"server_key\": \"" +
           options.keys.public_key + "\", \"join_token\": \"join\"}";
    runtime.start();
  }
  Hosted(const Hosted&) = delete;
  Hosted& operator=(const Hosted&) = delete;
  ~Hosted() { runtime.stop_and_join(); }

  // What it gives, on the host's strand.
  template <class Question>
  auto ask(Question question) {
    using T = decltype(question());
    return answer_of<T>([question](auto reply) { reply(question()); });
  }

  // What is asked for of the cluster.
  coordinator::AnswerBody request(coordinator::Input input) {
    return answer_of<coordinator::AnswerBody>(
        [this, input = std::move(input)](auto reply) { cluster->ask(input, {}, reply); });
  }

  coordinator::AnswerBody submit(std::size_t argument_bytes) {
    coordinator::SubmitJob submit;
    submit.spec = *spec::parse_job_spec("name: x\nkind: run\ncommand: [echo, " +
                                        std::string(argument_bytes, 'y') + "]\n");
    submit.yaml = spec::to_yaml(submit.spec);
    submit.owner = "admin";
    return request(submit);
  }

  coordinator::AnswerBody change(const coordinator::AccessChange& change) {
    coordinator::Caller caller;
    caller.user = "admin";
    caller.action = "token";
    return answer_of<coordinator::AnswerBody>(
        [this, change, caller](auto reply) { cluster->change_access(change, caller, reply); });
  }

  // Whether it holds before long, on the host's strand.
  template <class Question>
  bool eventually(Question holds) {
    const auto until = std::chrono::steady_clock::now() + patient(std::chrono::seconds(10));
    while (!ask(holds)) {
      if (std::chrono::steady_clock::now() >= until) return false;
      std::this_thread::yield();
    }
    return true;
  }

  const TemporaryFolder folder;
  actor::Runtime runtime{2};
  coordinator::Notices notices;
  coordinator::JobStores stores{runtime, folder.path() / "jobs", folder.path() / "jobs", notices};
  coordinator::AccessTable access{"admin", "join"};
  std::string join;
  std::unique_ptr<coordinator::ClusterHost> cluster;
  coordinator::Ledger* ledger = nullptr;  // the host's

 private:
  // Calls begin(reply) on the host's strand and waits for the reply.
  template <class T, class Begin>
  T answer_of(Begin begin) {
    auto answered = std::make_shared<std::promise<T>>();
    auto future = answered->get_future();
    REQUIRE(cluster->host()
                .tell([begin, answered] {
                  begin([answered](T value) { answered->set_value(std::move(value)); });
                })
                .ok());
    REQUIRE(future.wait_for(patient(std::chrono::seconds(20))) == std::future_status::ready);
    return future.get();
  }
};

}  // namespace tutti::test

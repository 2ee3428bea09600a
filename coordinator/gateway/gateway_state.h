// Which serving rank gets which request, and that every request ends in one answer or one error
// (I18).
//
//   held ------> sent ------> last piece          held: no rank of the model can be reached now,
//   but
//    |            |                                 one was or will be soon: a rank that is being
//    +--> error <-+                                 replaced costs new requests a moment, not an
//                                                   error. What was sent is never sent again.
//
// A rank that takes another's place gets what is asked from then on; the one before finishes what
// is open there, and its link is closed with the last of it.
//
// A model's name may be served by several jobs: a request goes to the one with the fewest open
// requests. A link whose connection is lost keeps its place, since it connects again by itself or
// is closed soon by the cluster.
//
// Which models there are is not known at once after the start, so an unknown one waits, too.
//
// Threads: none of its own. Errors that requests end with: not_found (no such model), exhausted
// (every rank of the model has open_max requests), unavailable (no rank, or it was lost),
// deadline_exceeded (no token within token_max), and what the rank says.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/gateway/gateway_messages.h"
#include "protocol/base/clock.h"

namespace tutti::gateway {

struct GatewaySettings {
  std::size_t open_max = 256;                      // requests per link, and held per model
  Duration token_max = std::chrono::seconds(60);   // from one piece to the next
  Duration held_max = std::chrono::seconds(10);    // until a rank can be reached
  Duration recent_max = std::chrono::seconds(60);  // a closed model is expected back so long
  std::size_t recent_models_max = 64;
  Duration start_max = std::chrono::seconds(5);  // until every serving rank has been heard of
};

struct GatewayCounters {
  std::uint64_t started = 0;
  std::uint64_t finished = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t prompt_tokens = 0;  // of finished requests
  std::uint64_t completion_tokens = 0;
  std::uint64_t stray_answers = 0;  // for requests that are not open

  bool operator==(const GatewayCounters&) const = default;
};

class GatewayState {
 public:
  GatewayState(Instant now, GatewaySettings settings)
      : settings_(settings), complete_from_(now + settings.start_max) {}

  std::vector<Effect> on(Instant now, Input input);
  // When a Tick is wanted at the latest.
  std::optional<Instant> next_due() const;

  // Names that are served, sorted.
  std::vector<std::string> models() const;
  std::size_t open_requests() const { return requests_.size(); }
  std::size_t links() const { return links_.size(); }
  const GatewayCounters& counters() const { return counters_; }

 private:
  struct Link {
    JobId job;
    std::string model;
    std::string endpoint;
    std::string key;
    bool connected = false;
    bool leaving = false;  // another rank took its place: it only finishes what is open
    std::set<RequestId> open;
  };

  struct Request {
    std::string model;
    wire::Generate generate;  // emptied once it is sent
    LinkId link;              // none: held
    Instant due;
  };

  void handle(StartRequest& input);
  void handle(const CancelRequest& input);
  void handle(const ServingOpened& input);
  void handle(const ServingClosed& input);
  void handle(const LinkConnected& input);
  void handle(const LinkLost& input);
  void handle(AnswerArrived& input);
  void handle(const SendRefused& input);
  void handle(const Tick&);

  LinkId link_of_job(JobId job) const;
  // The link of the model that takes the next request, if one can be reached and has room.
  LinkId best_link(const std::string& model) const;
  bool reachable(const std::string& model) const;
  bool expected(const std::string& model) const;
  Error absent(const std::string& model) const;
  std::size_t held(const std::string& model) const;

  void send(RequestId id, Request& request, LinkId link);
  void send_held(const std::string& model);
  void fail(RequestId id, Error error);
  void fail_all_of(LinkId link, const Error& error);
  void drop_link(LinkId link, const Error& error);
  void forget(RequestId id);
  void set_due(RequestId id, Request& request, Duration after);

  const GatewaySettings settings_;
  const Instant complete_from_;
  Instant now_;
  std::vector<Effect> effects_;
  std::uint64_t last_link_ = 0;
  std::map<LinkId, Link> links_;
  std::map<RequestId, Request> requests_;
  std::set<std::pair<Instant, RequestId>> dues_;
  std::map<std::string, Instant> recent_;  // closed models -> until when they are expected back
  GatewayCounters counters_;
};

}  // namespace tutti::gateway

// Everything the gateway's state machine can be told and everything it can do.
//
// A request is open from StartRequest until one Give whose `generated.finish` is set, one Fail, or
// its CancelRequest; after that nothing more is said of it (I18).
//
// Ownership: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "protocol/base/error.h"
#include "protocol/base/ids.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

using RequestId = Id<struct RequestTag>;  // chosen by the host, never used twice
using LinkId = Id<struct LinkTag>;        // chosen by the state machine, never used twice

// Inputs
// ---------------------------------------------------------------------------------------------

// `generate.request` is filled in by the state machine.
struct StartRequest {
  RequestId request;
  std::string model;
  wire::Generate generate;
};

// Whoever asked is gone. Unknown requests are ignored.
struct CancelRequest {
  RequestId request;
};

// A serve job takes requests there, from now on and nowhere else.
struct ServingOpened {
  JobId job;
  std::string model;
  std::string endpoint;
  std::string key;
};

struct ServingClosed {
  JobId job;
};

struct LinkConnected {
  LinkId link;
};

// The connection is gone, or the frame could not be sent. It may connect again by itself.
struct LinkLost {
  LinkId link;
};

struct AnswerArrived {
  LinkId link;
  wire::Generated generated;
};

// A Generate did not leave.
struct SendRefused {
  RequestId request;
  Error error;
};

// The time of GatewayState::next_due has come (or earlier: harmless).
struct Tick {};

using Input = std::variant<StartRequest, CancelRequest, ServingOpened, ServingClosed, LinkConnected,
                           LinkLost, AnswerArrived, SendRefused, Tick>;

// Effects
// --------------------------------------------------------------------------------------------

// Connect; tell LinkConnected at each connection and LinkLost at each loss.
struct OpenLink {
  LinkId link;
  std::string endpoint;
  std::string key;

  bool operator==(const OpenLink&) const = default;
};

struct CloseLink {
  LinkId link;

  bool operator==(const CloseLink&) const = default;
};

struct SendToServer {
  LinkId link;
  wire::ToServer message;

  bool operator==(const SendToServer&) const = default;
};

struct Give {
  RequestId request;
  wire::Generated generated;

  bool operator==(const Give&) const = default;
};

struct Fail {
  RequestId request;
  Error error;

  bool operator==(const Fail&) const = default;
};

using Effect = std::variant<OpenLink, CloseLink, SendToServer, Give, Fail>;

}  // namespace tutti::gateway

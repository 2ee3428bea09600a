// Endpoints of the control plane: one server that many named clients keep a connection to; whole
// frames, both ways.
//
//   server (ROUTER)  <- frames of a client, by its routing id      client (DEALER), reconnects by
//   itself
//                    -> send(peer, frame)
//
// Every link is encrypted and the server authenticated (CURVE): a client that has the wrong server
// key never connects. Any client key may connect to a server unless `admits` says otherwise; who
// may do what is decided by the messages (the join token of Hello). Open links exist only by
// Security::open, which is logged loudly.
//
// What is lost: frames in flight when a connection ends; the numbered messages above (sequencer.h)
// are sent again. A new connection with a known routing id takes the id over, so ids carry a random
// incarnation.
//
// Threads: everything on `host`'s strand; destroy there (or after the runtime stopped); no handler
// runs afterwards. Limits: queue_frames_max frames wait per peer, then send refuses; frames above
// kFrameBytesMax are counted and dropped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"
#include "protocol/transport/keys.h"

namespace tutti::transport {

enum class Security { curve, open };

struct EndpointCounters {
  std::atomic<std::uint64_t> frames_in{0};
  std::atomic<std::uint64_t> frames_out{0};
  std::atomic<std::uint64_t> refused_out{0};   // send() that was refused
  std::atomic<std::uint64_t> malformed_in{0};  // not one part, or too long
  std::atomic<std::uint64_t> accepted{
      0};  // TCP connections; what never gets to a handshake is noise
  std::atomic<std::uint64_t> connected{0};  // handshakes that succeeded
  std::atomic<std::uint64_t> disconnected{0};
  std::atomic<std::uint64_t> handshakes_failed{0};  // wrong key, wrong mechanism, noise
  std::atomic<std::uint64_t> keys_denied{0};        // by `admits`
};

class ServerEndpoint {
 public:
  virtual ~ServerEndpoint() = default;

  // Never waits. Errors: unavailable (no such peer is connected), exhausted (its queue is full).
  virtual Result<> send(std::string_view peer, std::string_view frame) = 0;

  // As bound first, with the port that the system chose: tcp://127.0.0.1:40123.
  virtual const std::string& address() const = 0;

  // Rotation of keys: listens on one more address with keys of its own, beside those before; gives
  // it as bound. Who is connected stays so until his address is removed. Errors: as open_server.
  virtual Result<std::string> add_address(const std::string& address, const KeyPair& keys) = 0;
  // Ends the connections that came over it.
  virtual void remove_address(const std::string& address) = 0;

  // The public key (Z85) of whoever sent the frame that is being handled, for on_frame; empty in an
  // open endpoint.
  virtual const std::string& sender_key() const = 0;
  virtual const EndpointCounters& counters() const = 0;
};

class ClientEndpoint {
 public:
  virtual ~ClientEndpoint() = default;

  // Never waits. Errors: unavailable (not connected), exhausted (the queue is full).
  virtual Result<> send(std::string_view frame) = 0;
  virtual const EndpointCounters& counters() const = 0;
};

struct ServerOptions {
  std::string address = "tcp://127.0.0.1:0";  // port 0: the system chooses
  Security security = Security::curve;
  KeyPair keys;  // with curve
  std::uint32_t queue_frames_max = 4096;
  std::function<bool(const std::string& public_key)> admits;  // empty: any key
};

struct ServerHandlers {
  std::function<void(const std::string& peer, std::string frame)> on_frame;
};

struct ClientOptions {
  std::string address;     // tcp://HOST:PORT
  std::string routing_id;  // at most 255 bytes, unique among the server's clients
  Security security = Security::curve;
  std::string server_key;  // with curve: Z85
  KeyPair keys;            // with curve; empty: made for this connection
  std::uint32_t queue_frames_max = 4096;
};

struct ClientHandlers {
  std::function<void(std::string frame)> on_frame;
  std::function<void()> on_connected;     // also after each reconnect: greet now
  std::function<void()> on_disconnected;  // may come late, or never for a silent peer
};

// Errors: invalid_argument (address, keys), already_exists (the address is taken), unavailable.
Result<std::unique_ptr<ServerEndpoint>> open_server(actor::ActorHost& host,
                                                    const ServerOptions& options,
                                                    ServerHandlers handlers);
Result<std::unique_ptr<ClientEndpoint>> open_client(actor::ActorHost& host,
                                                    const ClientOptions& options,
                                                    ClientHandlers handlers);

}  // namespace tutti::transport

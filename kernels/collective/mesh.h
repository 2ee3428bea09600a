// A communicator over one link per peer (link_stream.h), driven by one poll loop over all of them.
//
// Each transfer on a link is a header (number of its group, length) and its bytes. Every poll also
// watches the links that have nothing to move: a peer whose socket closes without a goodbye is
// gone, whoever this rank waits for. The destructor says goodbye, or, on a broken group, whom it
// saw gone, so that the others blame the same peer.
//
// Links in memory are moved without the kernel. Where none has anything to move, the rank looks
// again for a short while (`spin`), then says so to its peers and sleeps in the poll.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/collective/communicator.h"
#include "kernels/collective/link_header.h"
#include "kernels/collective/link_stream.h"
#include "kernels/collective/wakeup.h"

struct pollfd;

namespace tutti::kernels {

class Mesh final : public Communicator {
 public:
  struct Patience {
    Duration operation_deadline;  // 0: none
    Duration spin;                // before a sleep
  };

  // `links` by rank; the own entry is empty.
  Mesh(std::uint32_t rank, std::vector<LinkStream> links, const Patience& patience);
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;
  ~Mesh() override;

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return static_cast<std::uint32_t>(links_.size()); }
  Result<> look() override;
  Result<> exchange(std::span<const Transfer> transfers) override;
  void abort(std::string_view reason) noexcept override;
  bool aborted() const noexcept override { return aborted_.load(std::memory_order_acquire); }
  std::int32_t lost_peer() const noexcept override { return lost_peer_.load(); }
  std::uint64_t operations() const noexcept override { return operations_.load(); }

 private:
  // One direction of a link: its transfers of this group in order, and how far the first unfinished
  // one has come.
  struct Lane {
    std::vector<std::span<std::byte>> queue;
    std::size_t next = 0;
    std::size_t moved = 0;  // of header and bytes together
    LinkHeader header;

    bool idle() const { return next == queue.size(); }
    void restart() {
      queue.clear();
      next = 0;
      moved = 0;
    }
  };
  struct Link {
    LinkStream stream;
    Lane send;
    Lane receive;
    bool departed = false;  // it said goodbye
    bool ahead = false;     // it closed, but what it sent for a later group is still to be read

    bool idle() const { return send.idle() && receive.idle(); }
  };

  Result<> enqueue(std::span<const Transfer> transfers);
  Result<> move_until_done();
  Result<> start_sockets();
  Result<> move_in_memory(bool& moved_any);
  Result<> wait_and_move(bool& moved_any, int limit_ms);
  Result<> wait_for_peers(bool& moved_any, int limit_ms);
  bool may_spin() const;
  Result<> on_events(std::uint32_t peer, short events, bool& moved_any);
  Result<bool> send_some(std::uint32_t peer);
  Result<bool> receive_some(std::uint32_t peer);
  Result<> check_header(std::uint32_t peer);
  Result<> on_silent_close(std::uint32_t peer);
  Error broken_link(std::uint32_t peer, const Error& error);
  Error peer_is_gone(std::uint32_t peer, std::string_view how);
  Error notice_of(std::uint32_t peer, const LinkHeader& header);
  Error abort_error();
  bool idle() const;
  void say_farewell(Link& link) noexcept;

  const std::uint32_t rank_;
  const Duration operation_deadline_;
  Duration spin_;
  std::vector<Link> links_;
  std::vector<pollfd> polled_;
  std::vector<std::uint32_t> polled_peers_;
  std::optional<Error> broken_;
  std::atomic<std::int32_t> lost_peer_{-1};
  std::atomic<std::uint64_t> operations_{0};
  std::atomic<bool> aborted_{false};
  std::mutex reason_mutex_;
  std::string reason_;
  Wakeup wakeup_;
};

}  // namespace tutti::kernels

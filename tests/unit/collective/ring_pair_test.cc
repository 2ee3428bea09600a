#include "kernels/collective/ring_pair.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <array>
#include <catch2/catch.hpp>
#include <numeric>
#include <thread>
#include <vector>

namespace tutti::kernels {
namespace {

using Bytes = std::vector<std::byte>;

// Both sides, as two mappings of one memory.
struct Link {
  std::unique_ptr<RingPair> maker = *RingPair::make(kRingBytesMin);
  std::unique_ptr<RingPair> taker = *RingPair::take(maker->memory(), kRingBytesMin);
};

Bytes counted(std::size_t count, std::size_t first) {
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>((first + i) * 131 >> 3);
  return bytes;
}

std::size_t written(RingPair& ring, Bytes& bytes) {
  const iovec part{bytes.data(), bytes.size()};
  return *ring.write(std::span(&part, 1));
}

TEST_CASE("rings: bytes of odd lengths come out as they went in, around the end of the ring") {
  Link link;
  std::size_t sent = 0;
  std::size_t received = 0;
  for (std::size_t round = 0; round < 200; ++round) {
    Bytes out = counted(1 + round * 37 % 4096, sent);
    sent += written(*link.taker, out);
    Bytes in(1 + round * 53 % 4096);
    in.resize(*link.maker->read(in));
    CHECK(in == counted(in.size(), received));
    received += in.size();
  }
  CHECK(sent > 3 * kRingBytesMin);
  CHECK(sent - received <= kRingBytesMin);
}

TEST_CASE(
    "rings: a full ring takes no more, an empty one gives none, and a look leaves all there") {
  Link link;
  Bytes out = counted(kRingBytesMin + 1, 0);
  CHECK_FALSE(link.taker->readable());
  CHECK(written(*link.maker, out) == kRingBytesMin);
  CHECK_FALSE(link.maker->writable());
  CHECK(written(*link.maker, out) == 0);
  Bytes seen(100);
  CHECK(link.taker->peek(seen));
  CHECK(seen == counted(100, 0));
  Bytes in(kRingBytesMin + 1);
  CHECK(*link.taker->read(in) == kRingBytesMin);
  CHECK(*link.taker->read(in) == 0);
  CHECK_FALSE(link.taker->peek(seen));
  CHECK(link.maker->writable());
}

TEST_CASE("rings: a side that said it waits is to be told once, by whoever moves an index") {
  Link link;
  CHECK_FALSE(link.maker->wants_ringing());
  link.taker->begin_waiting();
  CHECK(link.maker->wants_ringing());
  CHECK_FALSE(link.maker->wants_ringing());
  link.taker->begin_waiting();
  link.taker->end_waiting();
  CHECK_FALSE(link.maker->wants_ringing());
}

// The memory as a process that means harm sees it; words lie a cache line apart: two heads, two
// tails.
class Intruder {
 public:
  explicit Intruder(const RingPair& maker)
      : words_(static_cast<std::uint64_t*>(
            ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, maker.memory().get(), 0))) {
    REQUIRE(words_ != MAP_FAILED);
  }
  Intruder(const Intruder&) = delete;
  Intruder& operator=(const Intruder&) = delete;
  ~Intruder() { ::munmap(words_, 4096); }
  std::uint64_t& head_of_taker() { return words_[8]; }
  std::uint64_t& tail_of_maker() { return words_[16]; }

 private:
  std::uint64_t* const words_;
};

TEST_CASE("rings: an index of the other side that cannot be is corrupt, forward and backward") {
  for (const std::uint64_t wrong : {kRingBytesMin + 11, std::uint64_t{9}, ~std::uint64_t{0}}) {
    Link link;
    Intruder intruder(*link.maker);
    Bytes bytes = counted(10, 0);
    REQUIRE(written(*link.taker, bytes) == 10);
    REQUIRE(*link.maker->read(bytes) == 10);
    intruder.head_of_taker() = wrong;
    CHECK(link.maker->read(bytes).error().code == ErrorCode::corrupt);
    CHECK(link.maker->readable());  // the read tells
  }
  Link link;
  Intruder intruder(*link.maker);
  Bytes bytes = counted(kRingBytesMin, 0);
  REQUIRE(written(*link.maker, bytes) == kRingBytesMin);
  intruder.tail_of_maker() = kRingBytesMin + 1;
  const iovec part{bytes.data(), bytes.size()};
  CHECK(link.maker->write(std::span(&part, 1)).error().code == ErrorCode::corrupt);
}

TEST_CASE("rings: memory that may shrink, or of another size than said, is refused") {
  const FileDescriptor unsealed(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(unsealed.get(), 4096 + 2 * kRingBytesMin) == 0);
  CHECK(RingPair::take(unsealed, kRingBytesMin).error().code == ErrorCode::corrupt);
  const auto maker = *RingPair::make(kRingBytesMin);
  CHECK(RingPair::take(maker->memory(), 2 * kRingBytesMin).error().code == ErrorCode::corrupt);
  CHECK(RingPair::take(maker->memory(), kRingBytesMin + 1).error().code == ErrorCode::corrupt);
  CHECK(::ftruncate(maker->memory().get(), 0) != 0);
  CHECK(RingPair::make(3 * kRingBytesMin).error().code == ErrorCode::invalid_argument);
}

TEST_CASE("rings: one thread writes while another reads, and nothing is lost") {
  constexpr std::size_t kTotal = 400'000;
  Link link;
  std::thread writer([&] {
    for (std::size_t sent = 0; sent < kTotal;) {
      Bytes out = counted(std::min<std::size_t>(1 + sent % 5000, kTotal - sent), sent);
      sent += written(*link.maker, out);
    }
  });
  bool right = true;
  Bytes in(3000);
  for (std::size_t received = 0; received < kTotal;) {
    const std::size_t got = *link.taker->read(in);
    right =
        right && Bytes(in.begin(), in.begin() + static_cast<long>(got)) == counted(got, received);
    received += got;
  }
  writer.join();
  CHECK(right);
}

}  // namespace
}  // namespace tutti::kernels

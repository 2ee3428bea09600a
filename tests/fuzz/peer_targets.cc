// What the other ranks of a group say: the greeting before a link counts, what comes over it, and
// the memory that is shared with a rank of the same machine.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/collective/greeting_io.h"
#include "kernels/collective/mesh.h"
#include "kernels/collective/ring_pair.h"
#include "protocol/base/sha256.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

using namespace kernels;

constexpr std::uint32_t kOwn = 1;
constexpr std::uint32_t kDialer = 2;
constexpr std::uint32_t kRanks = 4;

FormOptions options_of(std::uint32_t rank) {
  return {.rank = rank,
          .addresses = std::vector<std::string>(kRanks),
          .generation = 7,
          .secret = "the group's",
          .ring_bytes = 0};
}

std::pair<FileDescriptor, FileDescriptor> connected() {
  int ends[2];
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

// Of a peer that says this and no more.
FileDescriptor hear(const FileDescriptor& peer, FileDescriptor own, std::string_view bytes) {
  require(::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
              static_cast<ssize_t>(bytes.size()),
          "a socket takes nothing");
  ::shutdown(peer.get(), SHUT_WR);
  return own;
}

template <class Read>
bool arrives(std::string_view bytes, const Read& read, Greeting& out) {
  auto [own, peer] = connected();
  Incoming incoming{.socket = hear(peer, std::move(own), bytes), .greeting = {}};
  const Reading how = read(incoming);
  require(how == Reading::closed || incoming.got == sizeof(Greeting), "a part of a greeting");
  out = incoming.greeting;
  return how == Reading::complete && is_greeting(out);
}

// As a rank `kDialer` says it, with a nonce that is no news.
Greeting dialled() {
  Greeting out = make_refusal(Verdict::accepted);
  out.generation = 7;
  out.rank = kDialer;
  out.size = kRanks;
  std::fill(std::begin(out.nonce), std::end(out.nonce), '0');
  std::string said = "d";
  for (const std::uint64_t value : {out.generation, std::uint64_t{out.rank},
                                    std::uint64_t{out.size}, std::uint64_t{kOwn}, out.ring_bytes}) {
    for (int shift = 0; shift < 64; shift += 8) said.push_back(static_cast<char>(value >> shift));
  }
  said.append(out.nonce, kNonceBytes);
  const std::string proof = hmac_sha256_hex(options_of(kOwn).secret, said);
  std::memcpy(out.proof, proof.data(), kProofBytes);
  return out;
}

std::string bytes_of(const Greeting& greeting) {
  return {reinterpret_cast<const char*>(&greeting), sizeof greeting};
}

std::string transfer(std::uint64_t group, std::uint64_t bytes, std::string_view body) {
  const LinkHeader header{.group = group, .bytes = bytes};
  return std::string(reinterpret_cast<const char*>(&header), sizeof header).append(body);
}

}  // namespace

bool take_greeting(std::string_view bytes) {
  const FormOptions own = options_of(kOwn);
  Greeting heard;
  if (arrives(bytes, read_greeting, heard) && judge_dialer(heard, own) == Verdict::accepted) {
    require(heard.rank > kOwn && heard.rank < kRanks, "a dialer without a place");
    const Greeting answer = make_answer(own, heard, 0);
    require(judge_answer(answer, heard, options_of(heard.rank), kOwn).ok(),
            "who was let in does not take the answer");
    return true;
  }
  return arrives(bytes, read_answer, heard) &&
         judge_answer(heard, dialled(), options_of(kDialer), kOwn).ok();
}

std::vector<std::string> greeting_seeds() {
  Greeting other = dialled();
  other.rank = kOwn;
  const Greeting answer = make_answer(options_of(kOwn), dialled(), kRingBytesMin);
  return {bytes_of(dialled()),
          bytes_of(answer),
          bytes_of(other),
          bytes_of(make_refusal(Verdict::wrong_generation)),
          bytes_of(answer).substr(0, sizeof(Greeting) - 1),
          "GET / HTTP/1.1\r\n\r\n"};
}

// Two groups from a peer: 8 bytes, then 3, while it is sent one.
bool take_link(std::string_view bytes) {
  auto [own, peer] = connected();
  std::vector<LinkStream> links(2);
  links[1] = LinkStream(hear(peer, std::move(own), bytes));
  Mesh mesh(0, std::move(links),
            {.operation_deadline = std::chrono::milliseconds(100), .spin = Duration::zero()});
  std::array<std::byte, 8> first{};
  std::array<std::byte, 3> second{};
  std::array<std::byte, 1> word{};
  const Transfer one[] = {{Transfer::Direction::receive, 1, first}};
  const Transfer two[] = {{Transfer::Direction::receive, 1, second},
                          {Transfer::Direction::send, 1, word}};
  const bool taken = mesh.exchange(one).ok() && mesh.look().ok() && mesh.exchange(two).ok();
  require(mesh.lost_peer() == -1 || mesh.lost_peer() == 1, "a peer that is not there is blamed");
  return taken;
}

std::vector<std::string> link_seeds() {
  const std::string first = transfer(1, 8, "12345678");
  return {first + transfer(2, 3, "abc"),
          first + transfer(2, 3, "abc") + transfer(kLinkGoodbye, kNoSuspect, ""),
          first + transfer(kLinkBroken, 0, ""),
          first + transfer(kLinkGoodbye, kNoSuspect, ""),
          transfer(kLinkBroken, 1, ""),
          transfer(2, 8, "12345678"),
          transfer(1, std::uint64_t{1} << 60, "12345678"),
          first + transfer(2, 3, "a")};
}

// The other side has written its bytes over the words that both sides move.
bool take_rings(std::string_view bytes) {
  auto maker = RingPair::make(kRingBytesMin);
  require(maker.ok(), "no memory for rings");
  auto taker = RingPair::take((*maker)->memory(), kRingBytesMin);
  require(taker.ok(), "rings are not taken");
  char text[] = "hello";
  const iovec said{text, sizeof text};
  require((*taker)->write(std::span(&said, 1)).ok(), "fresh rings take nothing");
  struct stat about {};
  require(::fstat((*maker)->memory().get(), &about) == 0, "rings have no size");
  const auto size = static_cast<std::size_t>(about.st_size);
  void* const shared =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, (*maker)->memory().get(), 0);
  require(shared != MAP_FAILED, "rings cannot be mapped");
  std::memcpy(shared, bytes.data(), std::min(bytes.size(), size));
  ::munmap(shared, size);
  std::vector<std::byte> room(kRingBytesMin + 1);
  (*maker)->peek(std::span(room).first(4));
  const auto got = (*maker)->read(room);
  require(!got || *got <= room.size(), "more came than there is room for");
  bool writes = true;
  for (int i = 0; i < 3 && writes; ++i) {
    const iovec part{room.data(), room.size()};
    const auto sent = (*maker)->write(std::span(&part, 1));
    writes = sent.ok();
    require(!sent || *sent <= room.size(), "more was sent than there is");
  }
  static_cast<void>((*maker)->readable());
  static_cast<void>((*maker)->writable());
  return got.ok() && *got > 0 && writes;
}

std::vector<std::string> rings_seeds() {
  std::string behind(512, '\0');
  behind[64] = 6;  // what the taker has written
  return {"", std::string(512, '\xff'), std::string(512, '\0'), behind, behind + behind};
}

}  // namespace tutti::fuzz

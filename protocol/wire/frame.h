// A frame: a fixed header of 40 bytes, then one message as a MessagePack map by field name.
//
//   offset  0  magic       u32  0x49545554 ("TUTI")
//           4  version     u16  kProtocolVersion; another major is refused
//           6  kind        u16  number of the message type, see kinds.h
//           8  session     u64  SessionId; 0 before Welcome and on links without sessions
//          16  generation  u64  0: not about a generation
//          24  sequence    u64  number of an order or report, 0: neither
//          32  length      u32  bytes of body
//          36  reserved    u32  0
//
// All integers little endian. Errors: corrupt (truncated, wrong magic, lengths that do not match,
// body that does not decode), unsupported (version, kind), exhausted (longer than kFrameBytesMax),
// stale (session; decided by the caller).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::wire {

inline constexpr std::uint32_t kFrameMagic = 0x49545554;
inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::size_t kFrameHeaderBytes = 40;
// Largest frame: a spec (1 MiB at most) with room for a gang's addresses; spool chunks are smaller.
inline constexpr std::size_t kFrameBytesMax = std::size_t{4} << 20;
inline constexpr std::size_t kSpoolChunkBytesMax = std::size_t{256} << 10;

struct FrameHeader {
  std::uint16_t version = kProtocolVersion;
  std::uint16_t kind = 0;
  SessionId session;
  Generation generation;
  Sequence sequence;
  std::uint32_t length = 0;

  bool operator==(const FrameHeader&) const = default;
};

// The header's 40 bytes.
std::string encode_header(const FrameHeader& header);

// The header of `bytes`, which may be longer than the header. Checks magic, version and length
// limit, not the body.
Result<FrameHeader> decode_header(std::string_view bytes);

}  // namespace tutti::wire

#include "protocol/wire/frame.h"

#include <fmt/core.h>

namespace tutti::wire {

namespace {

template <class T>
void put(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}

template <class T>
T get(std::string_view bytes, std::size_t offset) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[offset + i])} << (8 * i);
  }
  return static_cast<T>(value);
}

}  // namespace

std::string encode_header(const FrameHeader& header) {
  std::string out;
  out.reserve(kFrameHeaderBytes);
  put(out, kFrameMagic);
  put(out, header.version);
  put(out, header.kind);
  put(out, header.session.value);
  put(out, header.generation.value);
  put(out, header.sequence.value);
  put(out, header.length);
  put(out, std::uint32_t{0});
  return out;
}

Result<FrameHeader> decode_header(std::string_view bytes) {
  if (bytes.size() < kFrameHeaderBytes) {
    return Error{ErrorCode::corrupt,
                 fmt::format("a frame of {} bytes is shorter than its header", bytes.size())};
  }
  if (get<std::uint32_t>(bytes, 0) != kFrameMagic) {
    return Error{ErrorCode::corrupt, "bytes that are no frame (wrong magic)"};
  }
  FrameHeader header;
  header.version = get<std::uint16_t>(bytes, 4);
  header.kind = get<std::uint16_t>(bytes, 6);
  header.session.value = get<std::uint64_t>(bytes, 8);
  header.generation.value = get<std::uint64_t>(bytes, 16);
  header.sequence.value = get<std::uint64_t>(bytes, 24);
  header.length = get<std::uint32_t>(bytes, 32);
  if (header.version != kProtocolVersion) {
    return Error{ErrorCode::unsupported,
                 fmt::format("protocol version {}; this is {}", header.version, kProtocolVersion)};
  }
  if (header.length > kFrameBytesMax - kFrameHeaderBytes) {
    return Error{ErrorCode::exhausted,
                 fmt::format("a frame states a body of {} bytes; at most {} are taken",
                             header.length, kFrameBytesMax - kFrameHeaderBytes)};
  }
  return header;
}

}  // namespace tutti::wire

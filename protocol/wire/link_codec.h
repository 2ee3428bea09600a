// The bodies of link.h's templates, for the .cc files that instantiate them; nobody else includes
// this.
#pragma once

#include <fmt/core.h>

#include <atomic>
#include <string>
#include <type_traits>
#include <variant>

#include "protocol/wire/codec.h"
#include "protocol/wire/kinds.h"
#include "protocol/wire/link.h"

namespace tutti::wire {

template <class Link>
Result<std::string> encode_frame(const Link& message, FrameHeader header) {
  std::string body = std::visit(
      [&]<class Message>(const Message& value) {
        header.kind = kind_of<Message>();
        return encode_body(value);
      },
      message);
  if (body.size() > kFrameBytesMax - kFrameHeaderBytes) {
    return Error{ErrorCode::exhausted, fmt::format("{} of {} bytes does not fit into a frame",
                                                   message_name(message), body.size())};
  }
  header.length = static_cast<std::uint32_t>(body.size());
  return encode_header(header) + body;
}

namespace detail {

inline void count(std::atomic<std::uint64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

inline std::atomic<std::uint64_t>& header_counter(const Error& error, std::string_view bytes,
                                                  FrameCounters& counters) {
  if (error.code == ErrorCode::unsupported) return counters.bad_version;
  if (error.code == ErrorCode::exhausted) return counters.oversized;
  return bytes.size() < kFrameHeaderBytes ? counters.truncated : counters.bad_magic;
}

// Decodes the body as Message if `kind` is its number; whether it was.
template <class Link, class Message>
bool decode_as(std::uint16_t kind, std::string_view body, Result<Link>& out) {
  if (kind != kind_of<Message>()) return false;
  Result<Message> message = decode_body<Message>(body);
  if (message) {
    out = Link(*std::move(message));
  } else {
    out = std::move(message).error();
  }
  return true;
}

template <class Link, class... Messages>
bool decode_any(std::uint16_t kind, std::string_view body, Result<Link>& out,
                std::type_identity<std::variant<Messages...>>) {
  return (decode_as<Link, Messages>(kind, body, out) || ...);
}

}  // namespace detail

template <class Link>
Result<Decoded<Link>> decode_frame(std::string_view bytes, FrameCounters& counters) {
  if (bytes.size() > kFrameBytesMax) {
    detail::count(counters.oversized);
    return Error{ErrorCode::exhausted,
                 fmt::format("a frame of {} bytes is too long", bytes.size())};
  }
  Result<FrameHeader> header = decode_header(bytes);
  if (!header) {
    detail::count(detail::header_counter(header.error(), bytes, counters));
    return std::move(header).error();
  }
  const std::string_view body = bytes.substr(kFrameHeaderBytes);
  if (body.size() != header->length) {
    detail::count(counters.truncated);
    return Error{ErrorCode::corrupt, fmt::format("a frame with {} bytes of body states {}",
                                                 body.size(), header->length)};
  }
  Result<Link> message =
      Error{ErrorCode::unsupported,
            fmt::format("frames of kind {} are not taken on this link", header->kind)};
  if (!detail::decode_any<Link>(header->kind, body, message, std::type_identity<Link>{})) {
    detail::count(counters.unknown_kind);
    return std::move(message).error();
  }
  if (!message) {
    detail::count(counters.bad_body);
    return std::move(message).error().with_context(fmt::format("frame of kind {}", header->kind));
  }
  detail::count(counters.taken);
  return Decoded<Link>{*header, *std::move(message)};
}

template <class Link>
std::string_view message_name(const Link& message) {
  return std::visit(
      []<class Message>(const Message&) -> std::string_view {
        // gcc writes "... [with Message = tutti::wire::StartRank; ...]" and clang "[Message =
        // ...]".
        constexpr std::string_view function = __PRETTY_FUNCTION__;
        constexpr std::size_t from = function.find("Message = ") + 10;
        constexpr std::size_t end = function.find_first_of(";]", from);
        constexpr std::string_view full = function.substr(from, end - from);
        return full.substr(full.rfind(':') + 1);
      },
      message);
}

}  // namespace tutti::wire

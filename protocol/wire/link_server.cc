#include "protocol/wire/link_codec.h"

namespace tutti::wire {

template Result<std::string> encode_frame<ToServer>(const ToServer&, FrameHeader);
template Result<Decoded<ToServer>> decode_frame<ToServer>(std::string_view, FrameCounters&);
template std::string_view message_name<ToServer>(const ToServer&);
template Result<std::string> encode_frame<FromServer>(const FromServer&, FrameHeader);
template Result<Decoded<FromServer>> decode_frame<FromServer>(std::string_view, FrameCounters&);
template std::string_view message_name<FromServer>(const FromServer&);

}  // namespace tutti::wire

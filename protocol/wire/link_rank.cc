#include "protocol/wire/link_codec.h"

namespace tutti::wire {

template Result<std::string> encode_frame<ToRank>(const ToRank&, FrameHeader);
template Result<Decoded<ToRank>> decode_frame<ToRank>(std::string_view, FrameCounters&);
template std::string_view message_name<ToRank>(const ToRank&);
template Result<std::string> encode_frame<FromRank>(const FromRank&, FrameHeader);
template Result<Decoded<FromRank>> decode_frame<FromRank>(std::string_view, FrameCounters&);
template std::string_view message_name<FromRank>(const FromRank&);

}  // namespace tutti::wire

#include "coordinator/ports_file.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace tutti::coordinator {

namespace json = boost::json;

namespace {

std::uint16_t port_of(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  boost::system::error_code failure;
  const auto port = value == nullptr ? std::uint16_t{0} : value->to_number<std::uint16_t>(failure);
  return failure ? std::uint16_t{0} : port;
}

}  // namespace

std::string to_json(const Ports& ports) {
  return json::serialize(json::object{
             {"http", ports.http}, {"control", ports.control}, {"liveness", ports.liveness}}) +
         "\n";
}

Ports parse_ports(std::string_view text) {
  boost::system::error_code failed;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), failed);
  if (failed || !value.is_object()) return {};
  const json::object& object = value.as_object();
  return {port_of(object, "http"), port_of(object, "control"), port_of(object, "liveness")};
}

}  // namespace tutti::coordinator
